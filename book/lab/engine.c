/* The network in the page: forward, and the way back, by the same few functions.
 *
 * A map is stored (step, channel), each step's channels padded with zeros to whole vectors. Before
 * each convolution, forward or transposed, the map becomes rows of what is not zero: ReLU, unpooling
 * and the choice of a filter leave little, and what is zero costs nothing. A row is a step; `starts`
 * says where each begins in `channels` and `values` (compressed sparse rows).
 *
 * engine.js owns the memory and calls these in turn. Nothing is imported.
 */

typedef unsigned char byte;
typedef unsigned short half;
typedef float vector __attribute__((vector_size(16)));

enum { LANES = 4, MOST = 8 };

#define EXPORT(name) __attribute__((export_name(#name))) name
#define INLINE static inline __attribute__((always_inline))

static int padded(int channels) { return (channels + LANES - 1) / LANES * LANES; }

/* A finite float16 as a float, exactly: the bits moved into place, the exponent's bias made up for. */
INLINE float widened(half bits) {
    union { unsigned bits; float value; } moved = {(unsigned)(bits & 0x7fff) << 13}, scale = {239u << 23};
    moved.value *= scale.value;
    moved.bits |= (unsigned)(bits & 0x8000) << 16;
    return moved.value;
}

void EXPORT(widen)(const half *from, int count, float *to) {
    for (int i = 0; i < count; i++) to[i] = widened(from[i]);
}

/* A convolution's weights (filter, channel, tap) for the way up, (tap, channel, filter), and with the
 * taps turned round for the way back, (tap, filter, channel). The padding is zero beforehand. */
void EXPORT(arrange)(const half *from, int filters, int channels, int taps, float *up, float *down) {
    int wide = padded(filters), deep = padded(channels);
    for (int f = 0; f < filters; f++)
        for (int c = 0; c < channels; c++)
            for (int tap = 0; tap < taps; tap++) {
                float value = widened(*from++);
                up[(tap * deep + c) * wide + f] = value;
                down[((taps - 1 - tap) * wide + f) * deep + c] = value;
            }
}

/* Collect what is positive of a map, for a map is rectified before anything else is done to it.
 * With `switches` each value goes to the step its max-pool took it from, of twice as many.
 * With `kept` only the channels marked there. `rectify` 0 collects negative values, too. */
void EXPORT(gather)(const float *map, int steps, int channels, const byte *switches, const byte *kept,
                    int rectify, int rows, int *starts, half *indices, float *values) {
    int pool = switches ? 2 : 1, count = 0, row = 0;
    for (int t = 0; t < steps; t++, map += channels) {
        for (int phase = 0; phase < pool; phase++) {
            starts[row++] = count;
            for (int c = 0; c < channels; c++) {
                /* Written always, counted only where it belongs: no branch to foretell. */
                indices[count] = (half)c;
                values[count] = map[c];
                int live = rectify ? map[c] > 0 : map[c] != 0;
                if (switches) live &= switches[c] == phase;
                if (kept) live &= kept[c];
                count += live;
            }
        }
        if (switches) switches += channels;
    }
    /* A step that the pool had left over is empty. */
    while (row <= rows) starts[row++] = count;
}

/* `size` vectors of output columns, for all steps: they stay in registers, their weights in cache. */
INLINE void columns(const int size, const int *starts, const half *indices, const float *values,
                    int rows, int shift, int taps, const float *weights, int deep, int wide,
                    const float *bias, int steps, float *out) {
    for (int t = 0; t < steps; t++) {
        vector sum[MOST];
        for (int j = 0; j < size; j++) sum[j] = bias ? ((const vector *)bias)[j] : (vector){0};
        for (int tap = 0; tap < taps; tap++) {
            int row = t + shift + tap;
            if (row < 0 || row >= rows) continue;
            const float *matrix = weights + (long)tap * deep * wide;
            for (int i = starts[row]; i < starts[row + 1]; i++) {
                const vector *weight = (const vector *)(matrix + (int)indices[i] * wide);
                vector value = (vector){0} + values[i];
                for (int j = 0; j < size; j++) sum[j] += value * weight[j];
            }
        }
        for (int j = 0; j < size; j++) ((vector *)(out + (long)t * wide))[j] = sum[j];
    }
}

/* out[t] = bias + the sum over taps of row t + shift + tap, times that tap's matrix. Going up, shift
 * is 0; going back it is 1 - taps, and the weights are those with the taps turned round. */
void EXPORT(convolve)(const int *starts, const half *indices, const float *values, int rows, int shift,
                      int taps, const float *weights, int deep, int wide, const float *bias, int steps,
                      float *out) {
    int column = 0;
#define TAKE(size)                                                                                     \
    for (; wide - column >= (size) * LANES; column += (size) * LANES)                                  \
        columns(size, starts, indices, values, rows, shift, taps, weights + column, deep, wide,        \
                bias ? bias + column : 0, steps, out + column);
    TAKE(8) TAKE(4) TAKE(2) TAKE(1)
#undef TAKE
}

/* ReLU, and where the block pools the larger of each two steps and which it was, 1 for the second.
 * Of equals the first is taken. */
void EXPORT(rectify)(const float *from, int steps, int channels, float *to, byte *switches) {
    for (int t = 0; t < steps; t++, to += channels) {
        for (int c = 0; c < channels; c++) {
            float first = from[c] > 0 ? from[c] : 0;
            if (switches) {
                float second = from[channels + c] > 0 ? from[channels + c] : 0;
                switches[c] = second > first;
                first = second > first ? second : first;
            }
            to[c] = first;
        }
        from += channels * (switches ? 2 : 1);
        if (switches) switches += channels;
    }
}

/* The mean square of each channel of a map. */
void EXPORT(energy)(const float *map, int steps, int channels, double *sums) {
    for (int c = 0; c < channels; c++) sums[c] = 0;
    for (int t = 0; t < steps; t++, map += channels)
        for (int c = 0; c < channels; c++) sums[c] += (double)map[c] * map[c];
    for (int c = 0; c < channels; c++) sums[c] /= steps;
}
