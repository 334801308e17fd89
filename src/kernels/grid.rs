//! A fixed division of a batch into tasks, the same for any number of threads.

use super::parallel;

/// `images` x `positions`, cut into spans.
#[derive(Clone, Copy)]
pub(crate) struct Grid {
    images: usize,
    positions: usize,
    span: usize,
}

/// One task of a [`Grid`]: some positions of one image.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(crate) image: usize,
    pub(crate) start: usize,
    pub(crate) len: usize,
}

impl Grid {
    /// Spans of at most `span` positions.
    pub(crate) fn new(images: usize, positions: usize, span: usize) -> Self {
        Self {
            images,
            positions,
            span,
        }
    }

    /// How many tasks there are.
    pub(crate) fn len(&self) -> usize {
        self.images * self.per_image()
    }

    fn per_image(&self) -> usize {
        self.positions.div_ceil(self.span)
    }

    /// Runs `task` on every span; its first argument counts the spans.
    pub(crate) fn for_each(&self, task: impl Fn(usize, Span) + Send + Sync) {
        let per_image = self.per_image();
        parallel::for_each(self.len(), |index| {
            let start = index % per_image * self.span;
            let len = self.span.min(self.positions - start);
            let image = index / per_image;
            task(index, Span { image, start, len });
        });
    }
}
