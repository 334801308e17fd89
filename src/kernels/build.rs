//! The build script. Only for the feature `cuda`: compiles `cuda/*.cu` with nvcc into one fat binary each, with
//! machine code for the GPUs below and code for later ones. Links CUDA's runtime into the program, which candle's
//! quantised kernels start before `main`; the other libraries are found at run time (cuda/libraries.rs).
//!
//! `CUDA_HOME` (or `CUDA_PATH`, or PATH) says where nvcc is; `CUDA_COMPUTE_CAP` what candle's own kernels are built
//! for, as candle reads it (90 for an H100), else the first GPU of this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Compute capabilities that get machine code: A100 and H100, and their families.
const CAPABILITIES: [u32; 2] = [80, 90];

/// What failed, for cargo to show.
type Result<T> = std::result::Result<T, String>;

fn main() -> Result<()> {
    println!("cargo::rerun-if-changed=src/kernels/build.rs");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return Ok(());
    }
    for variable in ["CUDA_HOME", "CUDA_PATH", "CUDA_COMPUTE_CAP"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    println!("cargo::rerun-if-changed=src/kernels/cuda");
    let capability = capability()?;
    println!("cargo::rustc-env=FASTFLOW_COMPUTE_CAPABILITY={capability}");
    println!("cargo::rustc-env=FASTFLOW_CUDA_MAJOR={}", cuda_major()?);
    if let Some(folder) = static_runtime() {
        println!("cargo::rustc-link-search=native={}", folder.display());
        // Whole: it comes before candle's kernels, and linkers take from a library what was asked for before it.
        println!("cargo::rustc-link-lib=static:+whole-archive,-bundle=cudart_static");
    }
    let out = variable("OUT_DIR")?;
    let sources = sources(Path::new("src/kernels/cuda"))?;
    std::thread::scope(|scope| {
        let out = Path::new(&out);
        let start = |source| scope.spawn(move || compile(source, out, capability));
        let compilers: Vec<_> = sources
            .iter()
            .map(|source: &PathBuf| start(source))
            .collect();
        compilers.into_iter().try_for_each(|compiler| {
            let ended = compiler.join();
            ended.map_err(|_| "a compiler's thread panicked".to_string())?
        })
    })
}

fn variable(name: &str) -> Result<String> {
    std::env::var(name).map_err(|why| format!("{name}: {why}"))
}

fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let fail = |why| format!("{}: {why}", folder.display());
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.extension().is_some_and(|extension| extension == "cu") {
            all.push(path);
        }
    }
    all.sort();
    Ok(all)
}

/// What candle's kernels are built for, as 10 * major + minor.
fn capability() -> Result<u32> {
    let text = match std::env::var("CUDA_COMPUTE_CAP") {
        Ok(text) => text,
        Err(_) => first_gpu()?,
    };
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    digits
        .parse()
        .map_err(|_| format!("CUDA_COMPUTE_CAP is `{text}`: give a number such as 90"))
}

fn first_gpu() -> Result<String> {
    let query = ["--query-gpu=compute_cap", "--format=csv,noheader"];
    let output = Command::new("nvidia-smi").args(query).output();
    let text = output
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok());
    let first = text.as_deref().and_then(|text| text.lines().next());
    first.map(str::to_string).ok_or_else(|| {
        "set CUDA_COMPUTE_CAP (90 for an H100, 80 for an A100): this machine shows no GPU".into()
    })
}

fn compile(source: &Path, out: &Path, capability: u32) -> Result<()> {
    let nvcc = nvcc();
    let target = out
        .join(source.file_name().unwrap_or_default())
        .with_extension("fatbin");
    let mut command = Command::new(&nvcc);
    // CI switches off the optimisation of candle's kernels in this way; ours are few. NVCC_PREPEND_FLAGS is for both.
    command.env_remove("NVCC_APPEND_FLAGS");
    command
        .args(["-fatbin", "-O3", "-std=c++17", "-o"])
        .arg(target)
        .arg(source);
    let mut all = CAPABILITIES.to_vec();
    all.push(capability);
    all.sort();
    all.dedup();
    for capability in &all {
        command.arg(format!(
            "-gencode=arch=compute_{capability},code=sm_{capability}"
        ));
    }
    if let Some(last) = all.last() {
        command.arg(format!("-gencode=arch=compute_{last},code=compute_{last}"));
    }
    let output = command
        .output()
        .map_err(|why| format!("{}: {why}; set CUDA_HOME to a CUDA toolkit", nvcc.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(format!("nvcc refused {}:\n{text}", source.display()))
}

fn nvcc() -> PathBuf {
    let mut found = homes().map(|home| home.join("bin/nvcc"));
    found
        .find(|path| path.is_file())
        .unwrap_or_else(|| "nvcc".into())
}

/// Where the toolkit may be.
fn homes() -> impl Iterator<Item = PathBuf> {
    let named = ["CUDA_HOME", "CUDA_PATH"].into_iter();
    let named = named.filter_map(std::env::var_os).map(PathBuf::from);
    named.chain([PathBuf::from("/usr/local/cuda")])
}

/// The toolkit's major version: its libraries' files end in it.
fn cuda_major() -> Result<u32> {
    let nvcc = nvcc();
    if nvcc.is_file() {
        println!("cargo::rerun-if-changed={}", nvcc.display());
    }
    let fail = |why: String| format!("{} --version: {why}", nvcc.display());
    let output = Command::new(&nvcc).arg("--version").output();
    let output = output.map_err(|why| fail(format!("{why}; set CUDA_HOME to a CUDA toolkit")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let release = text.split("release ").nth(1);
    let major = release.and_then(|release| release.split('.').next()?.parse().ok());
    major.ok_or_else(|| fail(format!("no release in `{}`", text.trim())))
}

/// The folder of the runtime that is linked into the program; none where the toolkit lacks it, or on systems where
/// the other libraries are needed at start too.
fn static_runtime() -> Option<PathBuf> {
    let target = ["CARGO_CFG_TARGET_OS", "CARGO_CFG_TARGET_ARCH"].map(std::env::var);
    if target != [Ok("linux".to_string()), Ok("x86_64".to_string())] {
        return None;
    }
    let folders = homes().flat_map(|home| ["lib64", "lib"].map(|folder| home.join(folder)));
    let mut folders = folders.filter(|folder| folder.join("libcudart_static.a").is_file());
    folders.next()
}
