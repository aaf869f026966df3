# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""Rate conversion of a stream of float samples, in stages of FIR filters. The loops run without the GIL.

Sums are written so that outputs or fixed partial sums lie side by side: compilers can use vectors of any width without
reordering anything, and every width gives the same bits.
"""
from libc.math cimport M_PI, fabs, sin, sqrt
from libc.stdint cimport int32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memmove, memset

from sttd._clones cimport cloned_void, own_floats

DEF BLOCK = 1024  # input samples at a time: the working set stays in the first-level cache
DEF LANES = 16  # partial sums of one output
DEF ATTENUATION = 98.0  # of the last stage's stop band, in dB
DEF HALVING = 106.0  # of the stages before, whose remains add up
DEF HIGHEST_RATE = 10_000_000
DEF LONGEST_TABLE = 4_000_000  # taps: 16 MB
DEF MAX_STAGES = 12
DEF MAX_COLUMNS = 8


cdef Py_ssize_t _gcd(Py_ssize_t a, Py_ssize_t b) noexcept:
    while b:
        a, b = b, a % b
    return a


cdef class FilterBank:
    """The filters of one rate conversion: Kaiser-windowed sincs, built once per pair of rates and shared.

    Rates far above the output's are halved first, by half-band filters, whose every other tap is zero; a polyphase
    filter does the rest. With `low` the lower of the two Nyquist frequencies the pass band is flat to 0.9 of it, the
    stop band (98 dB) begins at 1.05 of it. Samples keep their times: output 0 lies at input 0.
    Method: J. O. Smith, "Digital Audio Resampling"; J. F. Kaiser's formulas for length and window; half-band
    decimation as in P. P. Vaidyanathan, "Multirate Systems and Filter Banks", 4.6.
    """

    def __cinit__(self, Py_ssize_t rate_in, Py_ssize_t rate_out):
        if not (0 < rate_in <= HIGHEST_RATE and 0 < rate_out <= HIGHEST_RATE):
            raise ValueError(f"rates are positive, and at most {HIGHEST_RATE} Hz")
        cdef Py_ssize_t divisor = _gcd(rate_in, rate_out)
        self.up = rate_out // divisor
        self.down = rate_in // divisor
        self.block = BLOCK
        if self.up == self.down:
            return
        cdef double rate = rate_in, stop = 0.525 * rate_out
        cdef Py_ssize_t up = self.up, down = self.down
        while rate >= 2.5 * rate_out and self.count < MAX_STAGES - 1:
            # What folds at the new rate may fall only where the next stage stops it.
            self._add(rate, 1, 2, rate / 4, rate / 2 - 2 * stop, HALVING)
            rate /= 2
            if down % 2 == 0:
                down //= 2
            else:
                up *= 2
        stop = 0.525 * min(rate, rate_out)
        # The window's own ripple is far below the 0.01 dB that a pass band may have: its edge may lie inside the slope.
        slope = (stop - 0.45 * min(rate, rate_out)) / 0.955
        self._add(rate, up, down, stop - slope / 2, slope, ATTENUATION)

    def __dealloc__(self):
        cdef int i
        for i in range(self.count):
            free(self.stages[i].taps)
            free(self.stages[i].places)
            free(self.stages[i].spread)

    cdef int _add(
        self, double rate, Py_ssize_t up, Py_ssize_t down, double cutoff, double slope, double attenuation
    ) except -1:
        """Append a stage for input at `rate`, with half the amplitude at `cutoff` and a transition `slope` Hz wide."""
        cdef Stage* stage = &self.stages[self.count]
        cdef bint columns = up <= MAX_COLUMNS and down <= MAX_COLUMNS
        cdef Py_ssize_t half = <Py_ssize_t>((attenuation - 7.95) / (14.36 * slope / rate) / 2) + 1
        cdef Py_ssize_t multiple = 2 if columns else LANES
        cdef Py_ssize_t length = (2 * half + multiple - 1) // multiple * multiple
        if up * length > LONGEST_TABLE or self.block // down > LONGEST_TABLE // up:
            raise ValueError(f"no filter for {rate:g} Hz times {up} / {down}: the ratio is too fine")
        stage.up, stage.down, stage.length, stage.columns = up, down, length, columns
        stage.centre = length // 2 - 1
        stage.span = (up - 1) * down // up + length if columns else length
        stage.block = self.block
        stage.stride = (stage.span + self.block) // down + 2
        self.block = self.block * up // down + 2 * up
        stage.taps = <float*>calloc(up * length, sizeof(float))
        stage.width = (stage.span + 7) // 8 * 8
        stage.places = <int32_t*>calloc(stage.width, sizeof(int32_t))
        stage.spread = <float*>calloc(up * stage.width if columns else 1, sizeof(float))
        self.count += 1
        if stage.taps == NULL or stage.places == NULL or stage.spread == NULL:
            raise MemoryError
        with nogil:
            _design(stage, cutoff / rate, 0.1102 * (attenuation - 8.7))
            if columns:
                _spread(stage)
        self.delay += (stage.span - stage.centre) / rate
        return 0


cdef double _bessel_i0(double x) noexcept nogil:
    cdef double total = 1.0, term = 1.0
    cdef int k
    for k in range(1, 64):
        term *= (x / (2.0 * k)) * (x / (2.0 * k))
        total += term
        if term < total * 1e-17:
            break
    return total


cdef void _design(Stage* stage, double cutoff, double beta) noexcept nogil:
    """Fill the rows of a stage; `cutoff` is in cycles per input sample, `beta` the window's. Each row sums to one, so
    that DC passes exactly."""
    cdef double total
    cdef Py_ssize_t phase, j
    cdef float* row
    for phase in range(stage.up):
        row = stage.taps + phase * stage.length
        total = 0.0
        for j in range(stage.length):
            total += _tap(stage, phase, j, cutoff, beta)
        for j in range(stage.length):
            row[j] = <float>(_tap(stage, phase, j, cutoff, beta) / total)


cdef double _tap(Stage* stage, Py_ssize_t phase, Py_ssize_t j, double cutoff, double beta) noexcept nogil:
    cdef Py_ssize_t offset = phase * stage.down % stage.up if stage.columns else phase
    cdef double t = j - stage.centre - <double>offset / stage.up
    cdef double x = t / (stage.length / 2.0)
    cdef double angle = 2.0 * M_PI * cutoff * t
    if fabs(x) >= 1.0:
        return 0.0
    if cutoff == 0.25 and t != 0.0 and j % 2 == stage.centre % 2 and stage.up == 1:
        return 0.0  # exactly, unlike sin(k * pi) in floating point
    return _bessel_i0(beta * sqrt(1.0 - x * x)) * (sin(angle) / angle if angle != 0.0 else 1.0)


cdef void _spread(Stage* stage) noexcept nogil:
    """Rows of taps as columns want them: all phases at the same places, and no place where every row has a zero."""
    cdef Py_ssize_t phase, at, k = 0
    cdef bint used
    cdef float tap
    for at in range(stage.span):
        used = False
        for phase in range(stage.up):
            tap = _tap_at(stage, phase, at)
            stage.spread[phase * stage.width + k] = tap
            used = used or tap != 0.0
        if used:
            stage.places[k] = <int32_t>(at % stage.down * stage.stride + at // stage.down)
            k += 1
    for phase in range(stage.up):
        for at in range(k, stage.width):
            stage.spread[phase * stage.width + at] = 0.0
    stage.terms = (k + 7) // 8 * 8 if stage.up % 2 else (k + 3) // 4 * 4


cdef inline float _tap_at(const Stage* stage, Py_ssize_t phase, Py_ssize_t at) noexcept nogil:
    at -= phase * stage.down // stage.up
    return stage.taps[phase * stage.length + at] if 0 <= at < stage.length else 0.0


cdef class Resampler:
    """One stream's state, in one block of memory: every stage's history, the output, the columns worked on."""

    def __cinit__(self, FilterBank bank not None):
        cdef Py_ssize_t size = 0, widest = 0
        cdef int s
        cdef Stage* stage
        self.bank = bank
        for s in range(bank.count):
            stage = &bank.stages[s]
            size += stage.span + stage.block
            widest = max(widest, (stage.down + 2) * stage.stride)
        self.memory = <float*>calloc(size + bank.block + widest, sizeof(float))
        if self.memory == NULL:
            raise MemoryError
        cdef float* at = self.memory
        for s in range(bank.count):
            self.lines[s].history = at
            at += bank.stages[s].span + bank.stages[s].block
        self.output = at
        self.columns = at + bank.block
        self.rewind()

    def __dealloc__(self):
        free(self.memory)

    cdef void rewind(self) noexcept:
        """Forget all input, as at the start of a stream."""
        cdef int s
        self.taken = self.given = 0
        for s in range(self.bank.count):
            self.lines[s].phase = 0
            self.lines[s].held = self.bank.stages[s].centre
            memset(self.lines[s].history, 0, self.lines[s].held * sizeof(float))

    cdef float* inlet(self) noexcept nogil:
        """Where to put up to BLOCK samples before `run`."""
        return self.lines[0].history + self.lines[0].held if self.bank.count else self.output

    cdef Py_ssize_t run(self, Py_ssize_t n) noexcept nogil:
        """Take `n` samples from the inlet through all stages; returns how many came out in `output`."""
        cdef int s
        cdef float* target
        self.taken += n
        for s in range(self.bank.count):
            if s + 1 < self.bank.count:
                target = self.lines[s + 1].history + self.lines[s + 1].held
            else:
                target = self.output
            n = _advance(&self.bank.stages[s], &self.lines[s], n, target, self.columns)
        self.given += n
        return n

    cdef Py_ssize_t drain(self) noexcept nogil:
        """Run a block of zeros through the filters, which does not count as input."""
        cdef Py_ssize_t n
        memset(self.inlet(), 0, BLOCK * sizeof(float))
        n = self.run(BLOCK)
        self.taken -= BLOCK
        return n

    cdef Py_ssize_t due(self, Py_ssize_t frames) noexcept:
        """Return the number of outputs that `frames` more samples make."""
        cdef int s
        for s in range(self.bank.count):
            frames = _ready(&self.bank.stages[s], &self.lines[s], self.lines[s].held + frames)
        return frames

    cdef Py_ssize_t rest(self) noexcept:
        """Return the number of outputs within the duration of the input that have not come out."""
        return (self.taken * self.bank.up + self.bank.down - 1) // self.bank.down - self.given


cdef Py_ssize_t _ready(const Stage* stage, const Line* line, Py_ssize_t held) noexcept nogil:
    """How many outputs have their whole window within `held` samples; where there are columns, in whole rounds."""
    if held < stage.span:
        return 0
    if stage.columns:
        return ((held - stage.span) // stage.down + 1) * stage.up
    return ((held - stage.span + 1) * stage.up - 1 - line.phase) // stage.down + 1


cdef cloned_void _run_rows(
    const float* x, Py_ssize_t phase, const Stage* stage, Py_ssize_t n, float* out
) noexcept nogil:
    """`n` outputs one after the other, each the product of a window of `x` and the row of its phase."""
    cdef float[LANES] acc
    cdef Py_ssize_t i, k
    cdef int j
    cdef Py_ssize_t length = stage.length, up = stage.up
    cdef Py_ssize_t step = stage.down // up, rest = stage.down % up
    cdef const float* row
    for k in range(n):
        row = stage.taps + phase * length
        for j in range(LANES):
            acc[j] = 0.0
        for i in range(0, length, LANES):
            for j in range(LANES):
                acc[j] += x[i + j] * row[i + j]
        for j in range(8):
            acc[j] += acc[j + 8]
        for j in range(4):
            acc[j] += acc[j + 4]
        out[k] = (acc[0] + acc[2]) + (acc[1] + acc[3])
        phase += rest
        x += step
        if phase >= up:
            phase -= up
            x += 1


cdef Py_ssize_t _advance(
    const Stage* stage, Line* line, Py_ssize_t n, float* out, float* columns
) noexcept nogil:
    """Every output that `n` more samples make; then drop the input that none needs again."""
    cdef Py_ssize_t made, position
    line.held += n
    made = _ready(stage, line, line.held)
    if stage.columns:
        position = made // stage.up * stage.down
        _run_columns(stage, line, made // stage.up, out, columns)
    else:
        position = (line.phase + made * stage.down) // stage.up
        _run_rows(line.history, line.phase, stage, made, out)
        line.phase = (line.phase + made * stage.down) % stage.up
    line.held -= position
    memmove(line.history, line.history + position, line.held * sizeof(float))
    return made


cdef void _run_columns(
    const Stage* stage, const Line* line, Py_ssize_t rounds, float* out, float* columns
) noexcept nogil:
    """`rounds` times `up` outputs: deal out the input to columns, compute phase by phase, interleave the phases."""
    cdef Py_ssize_t phase = 0, r
    cdef Py_ssize_t up = stage.up
    cdef const float* taps = stage.spread
    cdef float* row = columns + stage.down * stage.stride
    cdef float* other = row + stage.stride
    if rounds == 0:
        return
    for r in range(stage.down):
        _deal(line.history + r, stage.down, (line.held - r + stage.down - 1) // stage.down, columns + r * stage.stride)
    while phase + 1 < up:
        _add_columns_twice(columns, stage.places, taps, taps + stage.width, stage.terms, rounds, row, other)
        _interleave(row, other, rounds, up, out + phase)
        taps += 2 * stage.width
        phase += 2
    if phase < up:
        _add_columns(columns, stage.places, taps, stage.terms, rounds, row if up > 1 else out)
        if up > 1:
            _interleave(row, NULL, rounds, up, out + phase)


cdef cloned_void _deal(const float* x, Py_ssize_t step, Py_ssize_t n, float* out) noexcept nogil:
    """Every step-th sample."""
    cdef Py_ssize_t i
    if step == 2:
        for i in range(n):
            out[i] = x[2 * i]
    elif step == 3:
        for i in range(n):
            out[i] = x[3 * i]
    else:
        for i in range(n):
            out[i] = x[step * i]


cdef cloned_void _interleave(const float* x, const float* y, Py_ssize_t n, Py_ssize_t step, float* out) noexcept nogil:
    cdef Py_ssize_t i
    if y == NULL:
        for i in range(n):
            out[i * step] = x[i]
    elif step == 2:
        for i in range(n):
            out[2 * i] = x[i]
            out[2 * i + 1] = y[i]
    else:
        for i in range(n):
            out[i * step] = x[i]
            out[i * step + 1] = y[i]


cdef cloned_void _add_columns(
    const float* x, const int32_t* places, const float* taps, Py_ssize_t terms, Py_ssize_t n, own_floats out
) noexcept nogil:
    """out[i] = the sum over all terms k, in their order, of taps[k] * x[places[k] + i]; `terms` is a multiple of 8."""
    cdef Py_ssize_t i, k
    cdef const float* a
    cdef const float* b
    cdef const float* c
    cdef const float* d
    cdef const float* e
    cdef const float* f
    cdef const float* g
    cdef const float* h
    cdef float p, q, r, s, t, u, v, w
    memset(out, 0, n * sizeof(float))
    for k in range(0, terms, 8):
        a, b, c, d = x + places[k], x + places[k + 1], x + places[k + 2], x + places[k + 3]
        e, f, g, h = x + places[k + 4], x + places[k + 5], x + places[k + 6], x + places[k + 7]
        p, q, r, s = taps[k], taps[k + 1], taps[k + 2], taps[k + 3]
        t, u, v, w = taps[k + 4], taps[k + 5], taps[k + 6], taps[k + 7]
        for i in range(n):
            out[i] = (
                ((((((out[i] + p * a[i]) + q * b[i]) + r * c[i]) + s * d[i]) + t * e[i]) + u * f[i]) + v * g[i]
            ) + w * h[i]


cdef cloned_void _add_columns_twice(
    const float* x, const int32_t* places, const float* taps, const float* more, Py_ssize_t terms, Py_ssize_t n,
    own_floats out, own_floats other
) noexcept nogil:
    """The same for two rows of taps at the same places: each sample is fetched once. `terms` is a multiple of 4."""
    cdef Py_ssize_t i, k
    cdef const float* a
    cdef const float* b
    cdef const float* c
    cdef const float* d
    cdef float e, f, g, h, p, q, r, s, t, u, v, w
    memset(out, 0, n * sizeof(float))
    memset(other, 0, n * sizeof(float))
    for k in range(0, terms, 4):
        a, b, c, d = x + places[k], x + places[k + 1], x + places[k + 2], x + places[k + 3]
        p, q, r, s = taps[k], taps[k + 1], taps[k + 2], taps[k + 3]
        t, u, v, w = more[k], more[k + 1], more[k + 2], more[k + 3]
        for i in range(n):
            e, f, g, h = a[i], b[i], c[i], d[i]
            out[i] = (((out[i] + p * e) + q * f) + r * g) + s * h
            other[i] = (((other[i] + t * e) + u * f) + v * g) + w * h
