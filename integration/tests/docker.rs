//! dockerd and containerd of the distribution with the runtime under test as their default runtime.

use super::engines::*;
use hull_integration::{Engine, tests};

tests! {
    run_passes_output_and_exit_code.engine(Engine::Docker),
}
