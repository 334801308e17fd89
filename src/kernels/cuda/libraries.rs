//! CUDA's libraries, found when something calls into them and not when the program starts: one program then runs with
//! and without them.
//!
//! candle links them, so the system's loader would refuse a program built with CUDA wherever one is missing. Here are
//! functions of the names that candle, cudarc and we call; the linker takes them before the libraries' own, which
//! nothing then needs (`--as-needed`, as Rust links with its own lld). Each jumps to the library's function, which the
//! first call looks up. A name that is not listed here still works: its library is then needed at start as before.
//!
//! Only functions that answer a status may be listed. They hold for the whole program that this crate is linked into.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

/// What is wrong with the first library that cannot be used, by its file's name; none where all can.
pub(crate) fn missing() -> Option<String> {
    let needed: &[&Library] = &[
        &DRIVER,
        &CUBLAS,
        &CURAND,
        #[cfg(feature = "cudnn")]
        &CUDNN,
    ];
    needed
        .iter()
        .find_map(|library| library.open().as_ref().err())
        .cloned()
}

/// A library that is opened once.
struct Library {
    file: &'static str,
    /// Another that it needs, opened before it, since its folder need not be known to the system's loader.
    needs: Option<&'static Library>,
    /// What its functions answer where it or they are missing: one of its statuses.
    absent: extern "C" fn() -> u32,
    opened: OnceLock<Result<libloading::Library, String>>,
}

macro_rules! library {
    ($library:ident, $file:expr, $status:literal, $needs:expr, [$($name:ident)*]) => {
        static $library: Library = Library {
            file: $file,
            needs: $needs,
            absent: {
                extern "C" fn absent() -> u32 {
                    $status
                }
                absent
            },
            opened: OnceLock::new(),
        };
        $(forward!($library, $name);)*
    };
}

/// One function: jumps to where its entry says.
macro_rules! forward {
    ($library:ident, $name:ident) => {
        const _: () = {
            static ENTRY: Entry = Entry {
                target: AtomicPtr::new(look_up as *mut ()),
                library: &$library,
                name: concat!(stringify!($name), "\0"),
            };

            // SAFETY: changes no register but r11, which calls may change, and leaves the stack as it was, so that the
            // target sees its caller's arguments whatever they are. Nothing else in the program has this name.
            #[unsafe(naked)]
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name() {
        std::arch::naked_asm!("lea r11, [rip + {entry}]", "jmp [r11]", entry = sym ENTRY)
            }
        };
    };
}

/// Where calls of one function go. `target` comes first: `forward` jumps through it.
#[repr(C)]
struct Entry {
    target: AtomicPtr<()>,
    library: &'static Library,
    /// Ends in 0.
    name: &'static str,
}

/// Runs at a function's first call, with its entry in r11: keeps the arguments, asks [`target`], and goes there.
///
/// # Safety
/// Only `forward` jumps here.
#[unsafe(naked)]
unsafe extern "C" fn look_up() {
    std::arch::naked_asm!(
        "push rbp", "mov rbp, rsp",
        "push rdi", "push rsi", "push rdx", "push rcx", "push r8", "push r9", "push rax", "push r11",
        "sub rsp, 128",
        "movups [rsp], xmm0", "movups [rsp + 16], xmm1", "movups [rsp + 32], xmm2", "movups [rsp + 48], xmm3",
        "movups [rsp + 64], xmm4", "movups [rsp + 80], xmm5", "movups [rsp + 96], xmm6", "movups [rsp + 112], xmm7",
        "mov rdi, r11",
        "call {target}",
        "movups xmm0, [rsp]", "movups xmm1, [rsp + 16]", "movups xmm2, [rsp + 32]", "movups xmm3, [rsp + 48]",
        "movups xmm4, [rsp + 64]", "movups xmm5, [rsp + 80]", "movups xmm6, [rsp + 96]", "movups xmm7, [rsp + 112]",
        "add rsp, 128",
        "pop r11", "mov r11, rax",
        "pop rax", "pop r9", "pop r8", "pop rcx", "pop rdx", "pop rsi", "pop rdi", "pop rbp",
        "jmp r11",
        target = sym target,
    )
}

/// The library's function, or one that answers that the library is not there; from now on calls go to it directly.
extern "C" fn target(entry: &'static Entry) -> *mut () {
    let library = entry.library.open().as_ref().ok();
    let found = library.and_then(|library| {
        // SAFETY: only the address is taken; who calls the function declared it as the library's headers do.
        let symbol = unsafe { library.get::<*mut ()>(entry.name.as_bytes()) };
        let lacking = |_| {
            let name = entry.name.trim_end_matches('\0');
            tracing::error!(
                "{} has no {name}: it is too old for this program",
                entry.library.file
            );
        };
        symbol.map_err(lacking).ok().map(|symbol| *symbol)
    });
    let target = found.unwrap_or(entry.library.absent as *mut ());
    entry.target.store(target, Ordering::Relaxed);
    target
}

impl Library {
    /// The library, or why it cannot be used.
    fn open(&self) -> &Result<libloading::Library, String> {
        if let Some(needed) = self.needs {
            // Where it is missing, opening this one says so.
            let _ = needed.open();
        }
        self.opened.get_or_init(|| {
            // SAFETY: NVIDIA's libraries; their initialisers ask nothing of us.
            let open = |path: PathBuf| unsafe { libloading::Library::new(path) };
            let paths = folders().into_iter().map(|folder| folder.join(self.file));
            let found = paths.filter(|path| path.is_file());
            let mut failure = String::new();
            for path in [PathBuf::from(self.file)].into_iter().chain(found) {
                match open(path) {
                    Ok(library) => return Ok(library),
                    // The loader's own words name the file; of a file that is there they come last.
                    Err(why) => {
                        failure = std::error::Error::source(&why).unwrap_or(&why).to_string();
                    }
                }
            }
            Err(failure)
        })
    }
}

/// Where toolkits are that the system's loader was not told of.
fn folders() -> Vec<PathBuf> {
    let homes = ["CUDA_HOME", "CUDA_PATH"].map(std::env::var_os);
    let mut homes: Vec<PathBuf> = homes.into_iter().flatten().map(PathBuf::from).collect();
    homes.push("/usr/local/cuda".into());
    let folders = homes
        .iter()
        .flat_map(|home| ["lib64", "lib"].map(|folder| home.join(folder)));
    folders.collect()
}

// CUDA_ERROR_STUB_LIBRARY
library!(DRIVER, "libcuda.so.1", 34, None, [
    cuCtxDestroy_v2 cuCtxGetCurrent cuCtxSetCurrent cuCtxSynchronize cuDeviceGet cuDeviceGetAttribute
    cuDeviceGetCount cuDeviceGetMemPool cuDevicePrimaryCtxRelease_v2 cuDevicePrimaryCtxRetain cuEventCreate
    cuEventDestroy_v2 cuEventRecord cuGetErrorString cuInit cuLaunchKernel cuMemAllocAsync cuMemAlloc_v2
    cuMemFreeAsync cuMemFree_v2 cuMemGetInfo_v2 cuMemPoolSetAttribute cuMemPoolTrimTo cuMemcpyDtoDAsync_v2
    cuMemcpyDtoHAsync_v2 cuMemcpyHtoDAsync_v2 cuMemcpyPeerAsync cuMemsetD8Async cuModuleGetFunction cuModuleLoad
    cuModuleLoadData cuModuleUnload cuStreamCreate cuStreamDestroy_v2 cuStreamIsCapturing cuStreamSynchronize
    cuStreamWaitEvent
]);
// CUBLAS_STATUS_NOT_INITIALIZED
library!(CUBLAS, concat!("libcublas.so.", env!("FASTFLOW_CUDA_MAJOR")), 1, Some(&CUBLAS_LT), [
    cublasCreate_v2 cublasDestroy_v2 cublasDgemmStridedBatched cublasGemmStridedBatchedEx cublasSetStream_v2
]);
library!(
    CUBLAS_LT,
    concat!("libcublasLt.so.", env!("FASTFLOW_CUDA_MAJOR")),
    1,
    None,
    []
);
// CURAND_STATUS_NOT_INITIALIZED
library!(CURAND, "libcurand.so.10", 101, None, [
    curandCreateGenerator curandDestroyGenerator curandSetPseudoRandomGeneratorSeed curandSetStream
]);
// CUDNN_STATUS_NOT_INITIALIZED
library!(CUDNN, "libcudnn.so.9", 1001, None, [
    cudnnConvolutionBackwardData cudnnConvolutionBackwardFilter cudnnConvolutionForward cudnnCreate
    cudnnCreateConvolutionDescriptor cudnnCreateFilterDescriptor cudnnCreateTensorDescriptor cudnnDestroy
    cudnnDestroyConvolutionDescriptor cudnnDestroyFilterDescriptor cudnnDestroyTensorDescriptor
    cudnnGetConvolutionBackwardDataAlgorithm_v7 cudnnGetConvolutionBackwardDataWorkspaceSize
    cudnnGetConvolutionBackwardFilterAlgorithm_v7 cudnnGetConvolutionBackwardFilterWorkspaceSize
    cudnnGetConvolutionForwardAlgorithm_v7 cudnnGetConvolutionForwardWorkspaceSize
    cudnnSetConvolution2dDescriptor cudnnSetConvolutionMathType cudnnSetFilter4dDescriptor cudnnSetStream
    cudnnSetTensor4dDescriptor cudnnSetTensor4dDescriptorEx
]);
