//! Maps on a GPU; arithmetic and launch shapes are in ../cuda/map.h.

use candle_core::cuda_backend::cudarc::driver::{DevicePtr, DeviceRepr};
use candle_core::{CudaStorage, Layout, Result as CandleResult, Storage, Tensor, op::BackpropOp};

use super::{ScaleMap, Statistic};
use crate::Result;
use crate::kernels::cuda::{Grid, LANES, WIDE, address, launch};
use crate::kernels::view::batch_strided;

/// As in map.h.
const MAX_SCALES: usize = 8;
const TILE: usize = 32;
/// Most low-resolution positions under a tile: their sums fit the shared memory every GPU has.
const MAX_REGION: usize = 4096;

/// A statistic over the channels of `z [B, C, H, W]`: `[B, H, W]`.
pub(super) fn position_map(
    z: &CudaStorage,
    layout: &Layout,
    statistic: Statistic,
) -> CandleResult<CudaStorage> {
    let device = &z.device;
    let stream = device.cuda_stream();
    let (batch, channels, height, width) = layout.shape().dims4()?;
    let positions = height * width;
    // SAFETY: the kernel writes all of it.
    let map = unsafe { device.alloc::<f32>(batch * positions)? };
    {
        let z = address::<f32>(z, layout, &stream)?;
        let (out, _written) = map.device_ptr(&stream);
        let grid = Grid::tiles(
            batch * positions.div_ceil(LANES * WIDE),
            WIDE * size_of::<f32>(),
        );
        launch!(
            device, Map::"position_map_f32", grid,
            statistic as i32, channels as i32, positions as i32, z.image, z.at, out
        );
    }
    Ok(CudaStorage::wrap_cuda_slice(map, device.clone()))
}

/// Bilinear resampling of `maps [B, h, w]`.
pub(super) fn upsample(
    maps: &CudaStorage,
    layout: &Layout,
    (height, width): (usize, usize),
) -> CandleResult<CudaStorage> {
    let device = &maps.device;
    let stream = device.cuda_stream();
    let (batch, rows, columns) = layout.shape().dims3()?;
    let len = batch * height * width;
    // SAFETY: the kernel writes all of it.
    let output = unsafe { device.alloc::<f32>(len)? };
    {
        let maps = address::<f32>(maps, layout, &stream)?;
        let (out, _written) = output.device_ptr(&stream);
        let sizes = [batch, rows, columns, height, width].map(|n| n as i32);
        launch!(
            device, Map::"upsample_f32", Grid::over(len),
            sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], maps.image, maps.at, out
        );
    }
    Ok(CudaStorage::wrap_cuda_slice(output, device.clone()))
}

/// Mean of the `k` largest values of each image of contiguous `maps [B, H, W]`: `[B]`.
pub(super) fn image_scores(
    maps: &CudaStorage,
    layout: &Layout,
    k: usize,
) -> CandleResult<CudaStorage> {
    let device = &maps.device;
    let stream = device.cuda_stream();
    let (batch, height, width) = layout.shape().dims3()?;
    // SAFETY: the kernel writes all of it.
    let scores = unsafe { device.alloc::<f32>(batch)? };
    {
        let maps = address::<f32>(maps, layout, &stream)?;
        let (out, _written) = scores.device_ptr(&stream);
        let grid = Grid::reducing(batch, size_of::<f64>());
        launch!(device, Map::"image_score_f32", grid, (height * width) as i32, k as i32, maps.at, out);
    }
    Ok(CudaStorage::wrap_cuda_slice(scores, device.clone()))
}

/// `Scale` of map.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Scale {
    z: u64,
    z_image: i64,
    channels: i32,
    height: i32,
    width: i32,
    shift: f32,
    factor: f32,
}

/// `MapSizes` of map.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct MapSizes {
    scales: [Scale; MAX_SCALES],
    scale_count: i32,
    kind: i32,
    batch: i32,
    height: i32,
    width: i32,
    region: i32,
}

// SAFETY: plain numbers in C's layout, as map.h declares them.
unsafe impl DeviceRepr for MapSizes {}

/// The whole map from f32 latents on one GPU, in one kernel; none where it does not fit one.
pub(super) fn anomaly_map(
    scales: &[ScaleMap],
    statistic: Statistic,
    (height, width): (usize, usize),
) -> Result<Option<Tensor>> {
    let regions = scales
        .iter()
        .map(|scale| region(scale.z, height, width))
        .collect::<Result<Vec<_>>>()?;
    let region = regions.into_iter().max().unwrap_or(0);
    if scales.is_empty() || scales.len() > MAX_SCALES || region > MAX_REGION {
        return Ok(None);
    }
    let latents: Vec<Tensor> = scales
        .iter()
        .map(|scale| batch_strided(scale.z))
        .collect::<Result<_>>()?;
    let batch = latents[0].dim(0)?;
    let device = latents[0].device().as_cuda_device()?;
    let stream = device.cuda_stream();
    let mut numbers = MapSizes {
        scales: [Scale::default(); MAX_SCALES],
        scale_count: scales.len() as i32,
        kind: statistic as i32,
        batch: batch as i32,
        height: height as i32,
        width: width as i32,
        region: region as i32,
    };
    for ((slot, z), scale) in numbers.scales.iter_mut().zip(&latents).zip(scales) {
        let (_, channels, rows, columns) = z.dims4()?;
        let (storage, layout) = z.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else {
            return Ok(None);
        };
        let z = address::<f32>(storage, layout, &stream)?;
        *slot = Scale {
            z: z.at,
            z_image: z.image,
            channels: channels as i32,
            height: rows as i32,
            width: columns as i32,
            shift: scale.shift,
            factor: scale.factor,
        };
    }
    let output = fused(device, numbers)?;
    let storage = CudaStorage::wrap_cuda_slice(output, device.clone());
    let map = Tensor::from_storage(
        Storage::Cuda(storage),
        (batch, height, width),
        BackpropOp::none(),
        false,
    );
    Ok(Some(map))
}

/// Launches the kernel; the latents must outlive the call.
fn fused(
    device: &candle_core::CudaDevice,
    numbers: MapSizes,
) -> CandleResult<candle_core::cuda_backend::cudarc::driver::CudaSlice<f32>> {
    let stream = device.cuda_stream();
    let (batch, height, width) = (
        numbers.batch as usize,
        numbers.height as usize,
        numbers.width as usize,
    );
    let region = numbers.region as usize;
    // SAFETY: the kernel writes all of it.
    let output = unsafe { device.alloc::<f32>(batch * height * width)? };
    {
        let (out, _written) = output.device_ptr(&stream);
        let floats = TILE * TILE + region + region.max(Grid::THREADS);
        let blocks = batch * height.div_ceil(TILE) * width.div_ceil(TILE);
        let grid = Grid::reducing(blocks, 0).with_shared(floats * size_of::<f32>());
        launch!(device, Map::"anomaly_map_f32", grid, numbers, out);
    }
    Ok(output)
}

/// An upper bound on the low-resolution positions under one tile.
fn region(z: &Tensor, height: usize, width: usize) -> Result<usize> {
    let (_, _, rows, columns) = z.dims4()?;
    let side = |input: usize, output: usize| input.min((TILE * input).div_ceil(output.max(1)) + 2);
    Ok(side(rows, height) * side(columns, width))
}
