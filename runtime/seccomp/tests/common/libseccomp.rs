//! Owns the binding to libseccomp for tests: dlopen, the nine functions needed, one profile to one program.
//! It drives the library as libcontainer does and judges nothing.
//! `oracle` includes it by path.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsRawFd, FromRawFd};

use hull_seccomp::SockFilter;

use crate::bpf_machine::Instruction;
use crate::model::{Abi, Family, Profile};

type Context = *mut c_void;

/// `struct scmp_arg_cmp`.
#[repr(C)]
struct ArgCmp {
    arg: c_uint,
    op: c_int,
    a: u64,
    b: u64,
}

/// The library's functions (seccomp.h).
struct Functions {
    init: unsafe extern "C" fn(u32) -> Context,
    release: unsafe extern "C" fn(Context),
    arch_add: unsafe extern "C" fn(Context, u32) -> c_int,
    arch_remove: unsafe extern "C" fn(Context, u32) -> c_int,
    rule_add: unsafe extern "C" fn(Context, u32, c_int, c_uint, *const ArgCmp) -> c_int,
    export: unsafe extern "C" fn(Context, c_int) -> c_int,
    resolve: unsafe extern "C" fn(*const c_char) -> c_int,
    resolve_arch: unsafe extern "C" fn(u32, *const c_char) -> c_int,
    name: unsafe extern "C" fn(u32, c_int) -> *mut c_char,
}

/// libseccomp, loaded for good.
pub(crate) struct Library {
    functions: Functions,
    /// Every name it resolves on one of our ABIs, with its number on each.
    pub(crate) names: BTreeMap<String, BTreeMap<Abi, u32>>,
}

macro_rules! symbol {
    ($handle:expr, $name:literal, $signature:ty) => {{
        // SAFETY: the handle is open and the name ends in NUL.
        let symbol = unsafe { libc::dlsym($handle, $name.as_ptr()) };
        assert!(!symbol.is_null(), "libseccomp lacks {:?}", $name);
        // SAFETY: seccomp.h gives this name this signature; the library is never unloaded.
        unsafe { std::mem::transmute::<*mut c_void, $signature>(symbol) }
    }};
}

impl Library {
    /// The library, or `None` with a printed reason.
    pub(crate) fn load() -> Option<Self> {
        // SAFETY: loads a library by its soname; its constructors touch nothing of ours.
        let handle = unsafe { libc::dlopen(c"libseccomp.so.2".as_ptr(), libc::RTLD_NOW) };
        if handle.is_null() {
            println!("SKIP: libseccomp.so.2 is not installed (apt-get install libseccomp2)");
            return None;
        }
        let functions = Functions {
            init: symbol!(handle, c"seccomp_init", unsafe extern "C" fn(u32) -> Context),
            release: symbol!(handle, c"seccomp_release", unsafe extern "C" fn(Context)),
            arch_add: symbol!(handle, c"seccomp_arch_add", unsafe extern "C" fn(Context, u32) -> c_int),
            arch_remove: symbol!(handle, c"seccomp_arch_remove", unsafe extern "C" fn(Context, u32) -> c_int),
            rule_add: symbol!(
                handle,
                c"seccomp_rule_add_array",
                unsafe extern "C" fn(Context, u32, c_int, c_uint, *const ArgCmp) -> c_int
            ),
            export: symbol!(handle, c"seccomp_export_bpf", unsafe extern "C" fn(Context, c_int) -> c_int),
            resolve: symbol!(
                handle,
                c"seccomp_syscall_resolve_name",
                unsafe extern "C" fn(*const c_char) -> c_int
            ),
            resolve_arch: symbol!(
                handle,
                c"seccomp_syscall_resolve_name_arch",
                unsafe extern "C" fn(u32, *const c_char) -> c_int
            ),
            name: symbol!(
                handle,
                c"seccomp_syscall_resolve_num_arch",
                unsafe extern "C" fn(u32, c_int) -> *mut c_char
            ),
        };
        let mut library = Self { functions, names: BTreeMap::new() };
        library.names = library.all_names();
        Some(library)
    }

    fn all_names(&self) -> BTreeMap<String, BTreeMap<Abi, u32>> {
        let mut names = BTreeMap::new();
        for abi in Abi::ALL {
            let x32 = if abi == Abi::X32 { 1 << 30 } else { 0 };
            // Its pseudo numbers for calls an ABI lacks, or reaches by multiplexing, begin below -100.
            let numbers = (0..700).map(|nr| nr | x32).chain(0xf0000..0xf0010).chain(-10_500..-100);
            for name in numbers.filter_map(|nr| self.name(abi, nr)) {
                names.entry(name).or_insert_with_key(|name| self.numbers(name));
            }
        }
        // arm has it, under the number libseccomp knows as arm_sync_file_range; hull knows both.
        names.remove("sync_file_range2");
        names
    }

    fn name(&self, abi: Abi, nr: i32) -> Option<String> {
        // SAFETY: the function takes plain values and returns an allocated string or NULL.
        let name = unsafe { (self.functions.name)(abi.token(), nr) };
        if name.is_null() {
            return None;
        }
        // SAFETY: not NULL, so a string that ends in NUL and that nobody else has.
        let owned = unsafe { CStr::from_ptr(name) }.to_str().unwrap().to_owned();
        // SAFETY: malloc'ed by the library for its caller to free, and not used after.
        unsafe { libc::free(name.cast()) };
        Some(owned)
    }

    fn numbers(&self, name: &str) -> BTreeMap<Abi, u32> {
        let c_name = CString::new(name).unwrap();
        let mut numbers = BTreeMap::new();
        for abi in Abi::ALL {
            // SAFETY: the name ends in NUL and outlives the call.
            let nr = unsafe { (self.functions.resolve_arch)(abi.token(), c_name.as_ptr()) };
            // It names socketcall's and ipc's calls by pseudo numbers, but writes rules for both.
            let direct = model_direct(abi, name);
            if let Some(nr) = u32::try_from(nr).ok().or(direct) {
                numbers.insert(abi, nr);
            }
        }
        numbers
    }

    /// The program for a profile, by libcontainer's steps; `None` when a rule is refused.
    pub(crate) fn compile(&self, profile: &Profile) -> Option<Vec<Instruction>> {
        let f = &self.functions;
        // SAFETY: takes a plain value.
        let context = unsafe { (f.init)(profile.default) };
        assert!(!context.is_null(), "seccomp_init({:#x})", profile.default);
        for abi in &profile.abis {
            // SAFETY: the context is live. EEXIST for the native one is fine.
            unsafe { (f.arch_add)(context, abi.token()) };
        }
        if profile.family == Family::Arm {
            // SAFETY: as above. This machine's own architecture, which a context starts with.
            unsafe { (f.arch_remove)(context, Abi::X86_64.token()) };
        }
        let program = self.add_rules(context, profile).then(|| self.export(context));
        // SAFETY: the context is live and not used after.
        unsafe { (f.release)(context) };
        program
    }

    fn add_rules(&self, context: Context, profile: &Profile) -> bool {
        let f = &self.functions;
        for (action, name, conditions) in profile.single_rules() {
            let name = CString::new(name).unwrap();
            // SAFETY: the name ends in NUL and outlives the call.
            let nr = unsafe { (f.resolve)(name.as_ptr()) };
            if nr == -1 {
                continue;
            }
            let args: Vec<ArgCmp> = conditions
                .iter()
                .map(|c| ArgCmp { arg: c.arg, op: c.op, a: c.value, b: c.value_two })
                .collect();
            let count = c_uint::try_from(args.len()).unwrap();
            // SAFETY: the context is live; `args` is `count` long and outlives the call.
            let rc = unsafe { (f.rule_add)(context, action, nr, count, args.as_ptr()) };
            if rc != 0 {
                assert_eq!(rc, -libc::EEXIST, "{name:?} {conditions:?}");
                return false;
            }
        }
        true
    }

    fn export(&self, context: Context) -> Vec<Instruction> {
        // SAFETY: the name ends in NUL.
        let fd = unsafe { libc::memfd_create(c"filter".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(fd >= 0, "memfd_create");
        // SAFETY: a new descriptor nobody else has.
        let mut file = unsafe { File::from_raw_fd(fd) };
        // SAFETY: the context is live, the descriptor open.
        let rc = unsafe { (self.functions.export)(context, file.as_raw_fd()) };
        assert_eq!(rc, 0, "seccomp_export_bpf");
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        let program = hull_seccomp::from_bytes(&bytes).unwrap();
        program.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect()
    }
}

/// i386's own numbers of the calls that socketcall(2) and ipc(2) also make.
fn model_direct(abi: Abi, name: &str) -> Option<u32> {
    const DIRECT: [(&str, u32); 27] = [
        ("socket", 359),
        ("socketpair", 360),
        ("bind", 361),
        ("connect", 362),
        ("listen", 363),
        ("accept4", 364),
        ("getsockopt", 365),
        ("setsockopt", 366),
        ("getsockname", 367),
        ("getpeername", 368),
        ("sendto", 369),
        ("sendmsg", 370),
        ("recvfrom", 371),
        ("recvmsg", 372),
        ("shutdown", 373),
        ("recvmmsg", 337),
        ("sendmmsg", 345),
        ("semget", 393),
        ("semctl", 394),
        ("shmget", 395),
        ("shmctl", 396),
        ("shmat", 397),
        ("shmdt", 398),
        ("msgget", 399),
        ("msgsnd", 400),
        ("msgrcv", 401),
        ("msgctl", 402),
    ];
    let found = DIRECT.iter().find(|(known, _)| *known == name)?;
    (abi == Abi::X86).then_some(found.1)
}

/// Loads a program into the calling thread; 0 or the errno.
pub(crate) fn load(program: &[SockFilter]) -> i32 {
    let fprog = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap(),
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: sets a bit of this thread.
    unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: `fprog` names a live slice of the kernel's layout and its length; the kernel only reads it.
    let rc = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const fprog) };
    if rc == 0 { 0 } else { std::io::Error::last_os_error().raw_os_error().unwrap() }
}
