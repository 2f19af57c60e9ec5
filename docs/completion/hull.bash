# bash completion of hull. Written by `cargo run -p hull --example man`; do not edit.

_hull() {
	local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
	local i verb='' places=0 root=() flags argument
	COMPREPLY=()
	for ((i = 1; i < COMP_CWORD; i++)); do
		[ "${COMP_WORDS[i]}" != --root ] || root=(--root "${COMP_WORDS[i + 1]}")
		case ${COMP_WORDS[i]} in
		--config | --console-socket | --file | --log | --pid-file | --pidfd-socket | --process | --resources | --bundle | --cwd | --root | --additional-gids | --apparmor | --blkio-weight | --cap | --cgroup | --cgroup-manager | --cpu-burst | --cpu-idle | --cpu-period | --cpu-quota | --cpu-rt-period | --cpu-rt-runtime | --cpu-share | --cpuset-cpus | --cpuset-mems | --env | --format | --id | --log-format | --log-level | --memory | --memory-reservation | --memory-swap | --pids-limit | --preserve-fds | --process-label | --rootless | --user) ((i++)) ;;
		-*) ;;
		*) if [ -n "$verb" ]; then ((++places)); else verb=${COMP_WORDS[i]}; fi ;;
		esac
	done
	case $before in
	--config | --console-socket | --file | --log | --pid-file | --pidfd-socket | --process | --resources)
		mapfile -t COMPREPLY < <(compgen -f -- "$word")
		return
		;;
	--bundle | --cwd | --root)
		mapfile -t COMPREPLY < <(compgen -d -- "$word")
		return
		;;
	--additional-gids | --apparmor | --blkio-weight | --cap | --cgroup | --cgroup-manager | --cpu-burst | --cpu-idle | --cpu-period | --cpu-quota | --cpu-rt-period | --cpu-rt-runtime | --cpu-share | --cpuset-cpus | --cpuset-mems | --env | --format | --id | --log-format | --log-level | --memory | --memory-reservation | --memory-swap | --pids-limit | --preserve-fds | --process-label | --rootless | --user) return ;;
	esac
	case $verb in
	'') flags='--debug --log --log-format --log-level --root --systemd-cgroup --cgroup-manager --rootless --strict --version -v' argument=verbs ;;
	create) flags='--bundle -b --config -f --console-socket --pidfd-socket --pid-file --no-pivot --no-new-keyring --preserve-fds' argument=none ;;
	start) flags='' argument=ids ;;
	run) flags='--bundle -b --config -f --detach -d --keep --console-socket --pidfd-socket --pid-file --no-pivot --no-new-keyring --preserve-fds' argument=none ;;
	exec) flags='--process -p --cwd --env -e --user -u --additional-gids -g --cap -c --tty -t --detach -d --console-socket --pidfd-socket --pid-file --process-label --apparmor --no-new-privs --preserve-fds --cgroup --ignore-paused' argument=ids ;;
	state) flags='' argument=ids ;;
	list) flags='--format -f --quiet -q' argument=none ;;
	ps) flags='--format -f' argument=ids ;;
	kill) flags='--all -a --regex -r' argument=ids ;;
	pause) flags='' argument=ids ;;
	resume) flags='' argument=ids ;;
	update) flags='--resources -r --memory --memory-swap --memory-reservation --cpu-quota --cpu-period --cpu-burst --cpu-share --cpu-idle --cpu-rt-period --cpu-rt-runtime --cpuset-cpus --cpuset-mems --pids-limit --blkio-weight' argument=ids ;;
	delete) flags='--force -f --regex -r' argument=ids ;;
	spec) flags='--bundle -b --file -f --rootless' argument=none ;;
	plan) flags='--config -f --json --id --no-pivot --no-new-keyring' argument=dirs ;;
	features) flags='' argument=none ;;
	*) return ;;
	esac
	[ "$places" = 0 ] || argument=none
	[ "$verb$places" != kill1 ] || argument=signals
	case $word in -*) argument=flags ;; esac
	case $argument in
	flags) mapfile -t COMPREPLY < <(compgen -W "$flags --help" -- "$word") ;;
	verbs) mapfile -t COMPREPLY < <(compgen -W 'create start run exec state list ps kill pause resume update delete spec plan features' -- "$word") ;;
	ids) mapfile -t COMPREPLY < <(compgen -W "$(hull "${root[@]}" list --quiet 2>/dev/null)" -- "$word") ;;
	signals) mapfile -t COMPREPLY < <(compgen -A signal -- "$word") ;;
	dirs) mapfile -t COMPREPLY < <(compgen -d -- "$word") ;;
	esac
}
complete -F _hull hull
