// Op `augment` (ssd/ops/augment.py has the contract): mirror, colour jitter, normalise, layout and precision in one write.
//
// Contrast blends with the mean grey of the image as it is when contrast's turn comes, so a first launch (PARTS blocks an
// image) repeats the operations before it and adds up grey; the second reads every pixel once and writes it once.
#include "block.h"

constexpr int PARTS = 16;
enum Operation { BRIGHTNESS, CONTRAST, SATURATION, HUE };

struct Colour {
    float r, g, b;
};

__device__ inline float clamp01(float value) { return fminf(fmaxf(value, 0.0f), 1.0f); }
__device__ inline float grey(Colour c) { return 0.2989f * c.r + 0.587f * c.g + 0.114f * c.b; }
__device__ inline float blend(float value, float other, float factor) {
    return clamp01(factor * value + (1.0f - factor) * other);
}

// One channel of the colour with hue `sextant` (0..6), saturation and value: n is 5, 3, 1 for red, green, blue.
__device__ inline float from_hsv(float n, float sextant, float saturation, float value) {
    float k = fmodf(n + sextant, 6.0f);
    return clamp01(value - value * saturation * fmaxf(0.0f, fminf(fminf(k, 4.0f - k), 1.0f)));
}

// Turns the hue by `turns` of the colour circle.
__device__ inline Colour shift_hue(Colour c, float turns) {
    float most = fmaxf(c.r, fmaxf(c.g, c.b)), chroma = most - fminf(c.r, fminf(c.g, c.b));
    float sextant = 0;
    if (chroma == 0)
        return c;
    else if (most == c.r)
        sextant = (c.g - c.b) / chroma;
    else if (most == c.g)
        sextant = 2.0f + (c.b - c.r) / chroma;
    else
        sextant = 4.0f + (c.r - c.g) / chroma;
    sextant = fmodf(sextant + 6.0f * turns + 12.0f, 6.0f);
    float saturation = chroma / most;
    return {from_hsv(5, sextant, saturation, most), from_hsv(3, sextant, saturation, most),
            from_hsv(1, sextant, saturation, most)};
}

__device__ inline Colour apply(Colour c, int operation, float factor, float mean) {
    if (operation == HUE) return shift_hue(c, factor);
    if (operation == BRIGHTNESS) return {blend(c.r, 0, factor), blend(c.g, 0, factor), blend(c.b, 0, factor)};
    float other = operation == CONTRAST ? mean : grey(c);
    return {blend(c.r, other, factor), blend(c.g, other, factor), blend(c.b, other, factor)};
}

__device__ inline Colour read_pixel(const unsigned char* image, int pixel) {
    const unsigned char* at = image + static_cast<i64>(pixel) * 3;
    return {at[0] / 255.0f, at[1] / 255.0f, at[2] / 255.0f};
}

// Grid: PARTS, images. Sums of grey just before contrast.
__global__ void sum_grey(const unsigned char* images, const float* factors, const i64* order, float* grey_sums,
                         int pixels) {
    i64 image = blockIdx.y;
    float sum = 0;
    for (int i = blockIdx.x * BLOCK + threadIdx.x; i < pixels; i += PARTS * BLOCK) {
        Colour c = read_pixel(images + image * pixels * 3, i);
        for (int round = 0; order[image * 4 + round] != CONTRAST; ++round) {
            int operation = static_cast<int>(order[image * 4 + round]);
            c = apply(c, operation, factors[image * 4 + operation], 0);
        }
        sum += grey(c);
    }
    sum = block_reduce(sum, Sum());
    if (threadIdx.x == 0) grey_sums[image * PARTS + blockIdx.x] = sum;
}

// Grid: pixels of the output, images. `flip` null: normalise only.
template <class T>
__global__ void write_pixels(const unsigned char* images, const bool* flip, const float* factors, const i64* order,
                             const float* grey_sums, T* out, int height, int width, int channels, bool channels_last) {
    int pixels = height * width, pixel = blockIdx.x * BLOCK + threadIdx.x;
    if (pixel >= pixels) return;
    i64 image = blockIdx.y;
    int x = pixel % width, source = flip && flip[image] ? pixel - x + width - 1 - x : pixel;
    Colour c = read_pixel(images + image * pixels * 3, source);
    if (flip) {
        float mean = 0;
        for (int part = 0; part < PARTS; ++part) mean += grey_sums[image * PARTS + part];
        mean /= static_cast<float>(pixels);
        for (int round = 0; round < 4; ++round) {
            int operation = static_cast<int>(order[image * 4 + round]);
            c = apply(c, operation, factors[image * 4 + operation], mean);
        }
    }
    float value[4] = {(c.r - 0.485f) / 0.229f, (c.g - 0.456f) / 0.224f, (c.b - 0.406f) / 0.225f, 0};
    for (int k = 0; k < channels; ++k) {
        i64 at = channels_last ? (image * pixels + pixel) * channels + k : (image * channels + k) * pixels + pixel;
        store(out[at], value[k]);
    }
}

extern "C" int ssd_augment_parts() { return PARTS; }

// images (B, H, W, 3) uint8; flip (B,) bool, factors (B, 4) float32 and order (B, 4) int64, a permutation of 0..3, or all
// null; grey_sums (B, ssd_augment_parts()) float32 is workspace. Writes out (B, channels, H, W) of element type `dtype`,
// channels 3 or 4, contiguous or channels last. 0 or the runtime's error code.
extern "C" int ssd_augment(const unsigned char* images, const bool* flip, const float* factors, const i64* order,
                           float* grey_sums, void* out, int batch, int height, int width, int channels,
                           int channels_last, int dtype, void* stream) {
    int error = 0;
    if (flip) error = LAUNCH(sum_grey, PARTS, batch, stream, images, factors, order, grey_sums, height * width);
    if (error != 0) return error;
    return with_type(dtype, [=](auto zero) {
        using T = decltype(zero);
        return LAUNCH(write_pixels<T>, blocks_for(static_cast<i64>(height) * width), batch, stream, images, flip, factors,
                      order, grey_sums, static_cast<T*>(out), height, width, channels, channels_last != 0);
    });
}
