//! TIFF beyond what the image library's own reader takes: further pages, BigTIFF, palettes, YCbCr, and values of any
//! depth. What the `tiff` crate cannot decode (12 bits packed, JPEG of the old kind, YCbCr that is subsampled without
//! JPEG, CIE Lab) is an error.

use std::borrow::Cow;
use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, Rgb32FImage, RgbImage, RgbaImage};
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::Tag;
use tiff::{ColorType, TiffResult};

use super::{Photo, range::Depth};

/// Pages that are counted at most.
const MAX_PAGES: usize = 9999;
/// Photometric interpretations of a palette's indices, and of grey with 0 as black.
const PALETTE: u16 = 3;
const BLACK_IS_ZERO: u16 = 1;

/// One page of a TIFF file, its header read.
pub(super) struct Page<'a> {
    decoder: Decoder<Cursor<Cow<'a, [u8]>>>,
    /// 16-bit red, green and blue of every index.
    palette: Option<Vec<u16>>,
    colour: ColorType,
    orientation: Option<Orientation>,
    /// Columns and rows, as stored.
    pub(super) dimensions: (u32, u32),
    /// How values are stored.
    pub(super) depth: Depth,
}

/// Whether the content is a TIFF or BigTIFF.
pub(super) fn is_tiff(bytes: &[u8]) -> bool {
    [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"]
        .iter()
        .any(|magic| bytes.starts_with(*magic))
}

/// How many pages there are, as far as they can be followed.
pub(super) fn pages(bytes: &[u8]) -> usize {
    let Ok(mut decoder) = Decoder::new(Cursor::new(bytes)) else {
        return 1;
    };
    let mut pages = 1;
    while pages < MAX_PAGES && decoder.more_images() && decoder.next_image().is_ok() {
        pages += 1;
    }
    pages
}

impl<'a> Page<'a> {
    /// Of the first page, 1, or a further one; decoders may allocate `memory` bytes.
    pub(super) fn open(bytes: &'a [u8], page: usize, memory: u64) -> TiffResult<Self> {
        let mut decoder = at(Cow::Borrowed(bytes), page, memory)?;
        let mut palette = None;
        if decoder.find_tag_unsigned::<u16>(Tag::PhotometricInterpretation)? == Some(PALETTE) {
            palette = Some(decoder.get_tag_u16_vec(Tag::ColorMap)?);
            // The crate reads no palettes: its indices are read as grey levels.
            let place = decoder.ifd_pointer().map_or(0, |place| place.0);
            decoder = at(Cow::Owned(without_palette(bytes, place)), page, memory)?;
        }
        let orientation = decoder.find_tag_unsigned::<u8>(Tag::Orientation);
        let orientation = orientation.ok().flatten().and_then(Orientation::from_exif);
        let layout = decoder.image_buffer_layout()?;
        let depth = match layout.sample_type {
            Some(kind) => depth(kind),
            None => Depth::U8,
        };
        Ok(Self {
            dimensions: decoder.dimensions()?,
            colour: decoder.colortype()?,
            depth: if palette.is_some() { Depth::U8 } else { depth },
            palette,
            orientation,
            decoder,
        })
    }

    /// Whether the photo lies on its side in the file.
    pub(super) fn is_turned(&self) -> bool {
        use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
        let turned = [Rotate90, Rotate270, Rotate90FlipH, Rotate270FlipH];
        self.orientation
            .is_some_and(|orientation| turned.contains(&orientation))
    }

    /// The upright photo.
    pub(super) fn decode(mut self) -> TiffResult<Photo> {
        let mut read = DecodingResult::U8(Vec::new());
        let layout = self.decoder.read_image_to_buffer(&mut read)?;
        let samples = Samples {
            size: self.dimensions,
            planes: layout.planes,
            row_bytes: layout.row_stride.map_or(0, |stride| stride.get()),
        };
        let mut image = match (read, &self.palette) {
            (DecodingResult::U8(values), palette) => {
                self.eight(&samples, values, palette.as_deref())
            }
            (DecodingResult::U16(values), None) => self.sixteen(&samples, values),
            (other, _) => samples.float(&numbers(other)),
        };
        if let Some(orientation) = self.orientation {
            image.apply_orientation(orientation);
        }
        Ok(Photo {
            image,
            depth: self.depth,
        })
    }

    fn eight(&self, samples: &Samples, values: Vec<u8>, palette: Option<&[u16]>) -> DynamicImage {
        let bits = self.colour.bit_depth();
        let values = match bits {
            1 | 2 | 4 => samples.unpacked(&values, bits, palette.is_none()),
            _ => values,
        };
        if let Some(palette) = palette {
            let entries = palette.len() / 3;
            let colour = |index: usize, part: usize| match palette.get(part * entries + index) {
                Some(value) if index < entries => (value >> 8) as u8,
                _ => 0,
            };
            return samples.rgb(&values, |of| {
                let index = usize::from(of(0));
                [0, 1, 2].map(|part| colour(index, part))
            });
        }
        match self.colour {
            ColorType::YCbCr(_) => samples.rgb(&values, |of| rgb_of_ycbcr([of(0), of(1), of(2)])),
            ColorType::CMYK(_) | ColorType::CMYKA(_) => samples.rgb(&values, |of| {
                let light = |ink: u8| (u16::from(255 - ink) * u16::from(255 - of(3)) / 255) as u8;
                [light(of(0)), light(of(1)), light(of(2))]
            }),
            ColorType::RGBA(_) => {
                let (width, height) = samples.size;
                RgbaImage::from_fn(width, height, |x, y| {
                    image::Rgba([0, 1, 2, 3].map(|part| samples.at(&values, x, y, part)))
                })
                .into()
            }
            _ if samples.channels(values.len()) < 3 => samples.rgb(&values, |of| [of(0); 3]),
            _ => samples.rgb(&values, |of| [of(0), of(1), of(2)]),
        }
    }

    fn sixteen(&self, samples: &Samples, values: Vec<u16>) -> DynamicImage {
        let (width, height) = samples.size;
        let of = |x, y, part| samples.at(&values, x, y, part);
        let grey = samples.channels(values.len()) < 3;
        let ink = matches!(self.colour, ColorType::CMYK(_) | ColorType::CMYKA(_));
        image::ImageBuffer::from_fn(width, height, |x, y| {
            let light = |part| {
                let [ink, black] = [part, 3].map(|part| u32::from(u16::MAX - of(x, y, part)));
                (ink * black / u32::from(u16::MAX)) as u16
            };
            image::Rgb(match (grey, ink) {
                (true, _) => [of(x, y, 0); 3],
                (_, true) => [light(0), light(1), light(2)],
                _ => [of(x, y, 0), of(x, y, 1), of(x, y, 2)],
            })
        })
        .into()
    }
}

fn at(
    bytes: Cow<'_, [u8]>,
    page: usize,
    memory: u64,
) -> TiffResult<Decoder<Cursor<Cow<'_, [u8]>>>> {
    let mut limits = Limits::default();
    limits.decoding_buffer_size = usize::try_from(memory).unwrap_or(usize::MAX);
    limits.intermediate_buffer_size = limits.decoding_buffer_size;
    let mut decoder = Decoder::new(Cursor::new(bytes))?.with_limits(limits);
    if page > 1 {
        decoder.seek_to_image(page - 1)?;
    }
    Ok(decoder)
}

/// The file with the directory at `place` calling its image grey.
fn without_palette(bytes: &[u8], place: u64) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let little = bytes.starts_with(b"II");
    let big = matches!(bytes.get(if little { 2 } else { 3 }), Some(b'+'));
    // Directory: a count, then entries of tag, type, count and value.
    let (head, entry, value) = if big { (8, 20, 12) } else { (2, 12, 8) };
    let number = |bytes: [u8; 2]| match little {
        true => u16::from_le_bytes(bytes),
        false => u16::from_be_bytes(bytes),
    };
    let mut at = usize::try_from(place)
        .unwrap_or(usize::MAX)
        .saturating_add(head);
    while let Some(&[a, b]) = bytes.get(at..at.saturating_add(2)) {
        let tag = number([a, b]);
        if tag == Tag::PhotometricInterpretation.to_u16()
            && let Some(field) = bytes.get_mut(at + value..at + value + 2)
        {
            field.copy_from_slice(&match little {
                true => BLACK_IS_ZERO.to_le_bytes(),
                false => BLACK_IS_ZERO.to_be_bytes(),
            });
        }
        // Tags are sorted.
        if tag >= Tag::PhotometricInterpretation.to_u16() {
            break;
        }
        at += entry;
    }
    bytes
}

/// JFIF's conversion (BT.601, all 256 levels).
fn rgb_of_ycbcr([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    let [y, cb, cr] = [f32::from(y), f32::from(cb) - 128.0, f32::from(cr) - 128.0];
    [
        y + 1.402 * cr,
        y - 0.344_136 * cb - 0.714_136 * cr,
        y + 1.772 * cb,
    ]
    .map(|v| v.round() as u8)
}

fn depth(kind: tiff::decoder::DecodingSampleType) -> Depth {
    use tiff::decoder::DecodingSampleType as Kind;
    match kind {
        Kind::U8 => Depth::U8,
        Kind::U16 => Depth::U16,
        Kind::U32 => Depth::U32,
        Kind::U64 => Depth::U64,
        Kind::I8 => Depth::I8,
        Kind::I16 => Depth::I16,
        Kind::I32 => Depth::I32,
        Kind::I64 => Depth::I64,
        Kind::F16 => Depth::F16,
        Kind::F32 => Depth::F32,
        _ => Depth::F64,
    }
}

/// Values of any depth as numbers of 24 bits.
fn numbers(read: DecodingResult) -> Vec<f32> {
    match read {
        DecodingResult::U8(v) => v.into_iter().map(f32::from).collect(),
        DecodingResult::U16(v) => v.into_iter().map(f32::from).collect(),
        DecodingResult::U32(v) => v.into_iter().map(|v| v as f32).collect(),
        DecodingResult::U64(v) => v.into_iter().map(|v| v as f32).collect(),
        DecodingResult::I8(v) => v.into_iter().map(f32::from).collect(),
        DecodingResult::I16(v) => v.into_iter().map(f32::from).collect(),
        DecodingResult::I32(v) => v.into_iter().map(|v| v as f32).collect(),
        DecodingResult::I64(v) => v.into_iter().map(|v| v as f32).collect(),
        DecodingResult::F16(v) => v.into_iter().map(f32::from).collect(),
        DecodingResult::F32(v) => v,
        DecodingResult::F64(v) => v.into_iter().map(|v| v as f32).collect(),
    }
}

/// Where the samples of a pixel lie.
struct Samples {
    size: (u32, u32),
    /// Channels apart from each other; 1 when those of a pixel follow each other.
    planes: usize,
    row_bytes: usize,
}

impl Samples {
    fn pixels(&self) -> usize {
        self.size.0 as usize * self.size.1 as usize
    }

    fn channels(&self, values: usize) -> usize {
        values / self.pixels().max(1)
    }

    /// A sample; of a channel that is not there the last one's.
    fn at<T: Copy + Default>(&self, values: &[T], x: u32, y: u32, channel: usize) -> T {
        let channels = self.channels(values.len());
        let channel = channel.min(channels.saturating_sub(1));
        let pixel = y as usize * self.size.0 as usize + x as usize;
        let place = match self.planes {
            0 | 1 => pixel * channels + channel,
            _ => channel * self.pixels() + pixel,
        };
        values.get(place).copied().unwrap_or_default()
    }

    fn rgb(&self, values: &[u8], colour: impl Fn(&dyn Fn(usize) -> u8) -> [u8; 3]) -> DynamicImage {
        RgbImage::from_fn(self.size.0, self.size.1, |x, y| {
            image::Rgb(colour(&|channel| self.at(values, x, y, channel)))
        })
        .into()
    }

    fn float(&self, values: &[f32]) -> DynamicImage {
        let grey = self.channels(values.len()) < 3;
        let channels = if grey { [0, 0, 0] } else { [0, 1, 2] };
        Rgb32FImage::from_fn(self.size.0, self.size.1, |x, y| {
            image::Rgb(channels.map(|channel| self.at(values, x, y, channel)))
        })
        .into()
    }

    /// Values of 1, 2 or 4 bits, one a byte; `scaled` to 255.
    fn unpacked(&self, packed: &[u8], bits: u8, scaled: bool) -> Vec<u8> {
        let (width, height) = (self.size.0 as usize, self.size.1 as usize);
        let bits = usize::from(bits);
        let most = (1u16 << bits) - 1;
        let row_bytes = self.row_bytes.max((width * bits).div_ceil(8));
        let value = |at: usize| {
            let (row, column) = (at / width, at % width);
            let byte = packed.get(row * row_bytes + column * bits / 8).copied();
            let value = u16::from(byte.unwrap_or_default()) >> (8 - bits - column * bits % 8);
            let value = value & most;
            (if scaled { value * 255 / most } else { value }) as u8
        };
        (0..width * height).map(value).collect()
    }
}
