//! buildah of the distribution with the runtime under test, on the storage of podman.

use super::engines::builds;
use hull_integration::{Engine, Lab, TestResult, tests};

tests! {
    each.engine(Engine::Podman);
    bud_runs_its_steps,
    run_passes_output_and_exit_code,
}

fn bud_runs_its_steps(lab: &Lab) -> TestResult {
    let engine = lab.engine()?;
    let tag = format!("localhost/{}", lab.tag);
    let runtime = lab.runtime.path.to_string_lossy().into_owned();
    let words = ["bud", "--pull-never", "--isolation", "oci", "--runtime", &runtime, "--network", "none"];
    builds(lab, &tag, "exit status 3", |context| Ok(engine.buildah(&words)?.args(&["-t", &tag, context])))
}

fn run_passes_output_and_exit_code(lab: &Lab) -> TestResult {
    let engine = lab.engine()?;
    let runtime = lab.runtime.path.to_string_lossy().into_owned();
    let name = engine.buildah(&["from", "--pull-never", hull_integration::engine::IMAGE])?.go().ok().text();
    let words = ["run", "--isolation", "oci", "--runtime", &runtime, "--network", "none", &name, "--"];
    let output = engine.buildah(&words)?.args(&["sh", "-c", "echo out; id -u; exit 5"]).go().rc(5);
    assert_eq!(output.out(), "out\n0\n");
    engine.buildah(&["rm", &name])?.go().ok();
    Ok(())
}
