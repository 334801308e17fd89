// The entries of maps and scores; arguments and launch shapes are in map.h.
#include "map.h"

using namespace fastflow;

FASTFLOW_ENTRY upsample_f32(int batch, int height, int width, int out_h, int out_w, long long map_image,
                                        const float* maps, float* out) {
    upsample(here(), batch, height, width, out_h, out_w, map_image, maps, out);
}

FASTFLOW_ENTRY image_score_f32(int size, int k, const float* maps, float* scores) {
    image_score(here(), size, k, maps, scores);
}

#define ENTRIES(NAME, T) \
    FASTFLOW_ENTRY position_map_##NAME(int kind, int channels, int positions, long long z_image, \
                                                   const T* z, float* map) { \
        position_map(here(), kind, channels, positions, z_image, z, map); \
    } \
    FASTFLOW_ENTRY anomaly_map_##NAME(const __grid_constant__ MapSizes s, float* out) { \
        anomaly_map<T>(here(), s, out); \
    }

ENTRIES(f32, float)
ENTRIES(f16, f16)
ENTRIES(bf16, bf16)
