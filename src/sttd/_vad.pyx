# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""The compiled voice gate: log-band features of each frame and a small recurrent network that judges them.

No floating-point function of the C library is called for a frame (only for the tables, once), and no sum is reordered,
so that machines get the same bits. The network's weights, in _vad_weights.h, are made by tools/gate/train.py.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.math cimport M_PI, cos, exp, log, sin
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t
from libc.string cimport memcpy, memmove, memset

from sttd._clones cimport cloned_void, own_floats

DEF FRAME = 320  # 20 ms at 16 kHz
DEF WINDOW = 512
DEF HALF = 256
DEF BANDS = 28
DEF LAGS = 4  # ranges of the autocorrelation's lag
DEF LONGEST_LAG = 125
DEF INPUTS = 60  # 2 * BANDS + LAGS
DEF RECENT = 5  # frames whose probabilities `confidence` averages: a tenth of a second
DEF QUIETEST = 4 * 4 * FRAME  # energy of a frame of s16 below which nothing is heard: 4 steps r.m.s.
DEF SETTLING = 16  # quiet frames that the network still sees, so that it rests in silence
DEF CALM = 100  # frames without speech after which a fresh memory takes over: no quiet is older than three seconds
DEF WARMING = 50  # frames that the fresh memory has heard by then
DEF RESTLESS = 500  # CALM where something might be speech all the time
DEF CALM_BELOW = 0.3  # probability under which nothing might be speech
DEF SMOOTHING = 0.85  # share of the mean probability that stays from one frame to the next: about 130 ms

cdef extern from "_vad_weights.h":
    enum:
        DENSE "STTD_DENSE"
        HIDDEN "STTD_HIDDEN"
    # Input by input, all outputs of one beside each other; to be multiplied by the output's scale.
    const int8_t DENSE_WEIGHTS "sttd_dense_weights"[]
    const float DENSE_SCALES "sttd_dense_scales"[]
    const float DENSE_BIAS "sttd_dense_bias"[]
    const int8_t GRU_WEIGHTS "sttd_gru_weights"[]  # layer by layer, first those of the input, then of the state
    const float GRU_SCALES "sttd_gru_scales"[]
    const float GRU_BIAS "sttd_gru_bias"[]
    const float OUT_WEIGHTS "sttd_out_weights"[]
    const float OUT_BIAS "sttd_out_bias"
    const float MEAN "sttd_mean"[]
    const float SCALE "sttd_scale"[]

cdef struct Layer:
    float[DENSE * 3 * HIDDEN] of_input
    float[HIDDEN * 3 * HIDDEN] of_state
    float[3 * HIDDEN] input_bias, state_bias

cdef struct Memory:
    float[HIDDEN] first, second

cdef float[WINDOW] _hann
cdef float[LONGEST_LAG] _unbias  # one over the window's own autocorrelation
cdef float[WINDOW] _cos  # at h + j: of j * pi / h, for h = 1, 2, 4 ... 256
cdef float[WINDOW] _sin  # minus the sine of the same
cdef int[2][HALF] _places  # where the transforms of 128 and 256 points leave their bins
cdef float[HALF] _rising  # the share of a bin in the band that rises there; the rest is the one's that falls
cdef int[BANDS + 2] _edges
cdef float[INPUTS * DENSE] _dense
cdef Layer[2] _layers
cdef int[LAGS + 1] _lags = [20, 32, 50, 80, LONGEST_LAG]  # at 8 kHz: 400, 250, 160, 100, 64 Hz


cdef void _fill_tables() noexcept:
    cdef int i, j, turned
    cdef double total, low = 1127.0 * log(1.0 + 60.0 / 700.0), high = 1127.0 * log(1.0 + 7600.0 / 700.0)
    for i in range(WINDOW):
        _hann[i] = <float>(0.5 - 0.5 * cos(2.0 * M_PI * (i + 0.5) / WINDOW))
    for i in range(LONGEST_LAG):
        total = 0.0
        for j in range(WINDOW - 2 * i):
            total += <double>_hann[j] * _hann[j + 2 * i]
        _unbias[i] = <float>(WINDOW * 0.375 / total)
    i = 1
    while i < WINDOW:
        for j in range(i):
            _cos[i + j] = <float>cos(M_PI * j / i)
            _sin[i + j] = <float>-sin(M_PI * j / i)
        i *= 2
    for i in range(HALF):
        turned = 0
        for j in range(8):
            turned |= ((i >> j) & 1) << (7 - j)
        _places[1][i] = turned % 16 * 16 + turned // 16
        if i < HALF // 2:
            turned //= 2
            _places[0][i] = turned % 16 * 8 + turned // 16
    # Mel scale (O'Shaughnessy 1987), 60 Hz to 7.6 kHz.
    for i in range(BANDS + 2):
        total = 700.0 * (exp((low + (high - low) * i / (BANDS + 1)) / 1127.0) - 1.0)
        _edges[i] = <int>(total * WINDOW / 16000.0 + 0.5)
    for i in range(BANDS + 1):
        for j in range(_edges[i], _edges[i + 1]):
            _rising[j] = <float>(j - _edges[i]) / (_edges[i + 1] - _edges[i])


cdef void _fill_weights() noexcept:
    cdef int i, j, layer
    cdef const int8_t* weights = GRU_WEIGHTS
    cdef const float* scales = GRU_SCALES
    cdef const float* bias = GRU_BIAS
    cdef int inputs = DENSE
    for i in range(INPUTS):
        for j in range(DENSE):
            _dense[i * DENSE + j] = DENSE_WEIGHTS[i * DENSE + j] * DENSE_SCALES[j]
    for layer in range(2):
        for i in range(inputs):
            for j in range(3 * HIDDEN):
                _layers[layer].of_input[i * 3 * HIDDEN + j] = weights[i * 3 * HIDDEN + j] * scales[j]
        weights += inputs * 3 * HIDDEN
        scales += 3 * HIDDEN
        for i in range(HIDDEN):
            for j in range(3 * HIDDEN):
                _layers[layer].of_state[i * 3 * HIDDEN + j] = weights[i * 3 * HIDDEN + j] * scales[j]
        weights += HIDDEN * 3 * HIDDEN
        scales += 3 * HIDDEN
        for j in range(3 * HIDDEN):
            _layers[layer].input_bias[j] = bias[j]
            _layers[layer].state_bias[j] = bias[3 * HIDDEN + j]
        bias += 6 * HIDDEN
        inputs = HIDDEN


_fill_tables()
_fill_weights()


cdef union Bits:
    float value
    int32_t bits


cdef inline float _log2(float x) noexcept nogil:
    """Base-2 logarithm of a positive normal number, to 1e-4: exponent plus a polynomial of the mantissa."""
    cdef Bits u
    cdef int32_t exponent
    cdef float m
    u.value = x
    exponent = (u.bits >> 23) - 127
    u.bits = (u.bits & 0x7FFFFF) | 0x3F800000
    m = u.value
    m -= 1
    return exponent + (m + m * (m - 1) * (-<float>0.43872480 + m * (<float>0.23905451 - m * <float>0.08212768)))


cdef inline float _tanh(float x) noexcept nogil:
    """A rational approximation (Lambert's continued fraction), to 1e-4 and within -1 to 1."""
    cdef float s, t
    x = x if x < <float>4.9 else <float>4.9
    x = x if x > -<float>4.9 else -<float>4.9
    s = x * x
    t = x * (<float>135135.0 + s * (<float>17325.0 + s * (<float>378.0 + s)))
    return t / (<float>135135.0 + s * (<float>62370.0 + s * (<float>3150.0 + s * <float>28.0)))


cdef inline float _sigmoid(float x) noexcept nogil:
    return <float>0.5 + <float>0.5 * _tanh(<float>0.5 * x)


cdef cloned_void _matvec(
    const float* x, int inputs, const float* weights, int outputs, const float* bias, own_floats out
) noexcept nogil:
    """out = bias + x times weights (a row of `outputs` an input; `inputs` is a multiple of 4)."""
    cdef int i, j
    cdef const float* a
    cdef const float* b
    cdef const float* c
    cdef const float* d
    cdef float s, t, u, v
    memcpy(out, bias, outputs * sizeof(float))
    for i in range(0, inputs, 4):
        a = weights + i * outputs
        b = a + outputs
        c = b + outputs
        d = c + outputs
        s, t, u, v = x[i], x[i + 1], x[i + 2], x[i + 3]
        for j in range(outputs):
            out[j] = (((out[j] + s * a[j]) + t * b[j]) + u * c[j]) + v * d[j]


cdef cloned_void _squash(const float* x, const float* y, int n, own_floats out) noexcept nogil:
    """Sigmoid of x + y."""
    cdef int i
    for i in range(n):
        out[i] = _sigmoid(x[i] + y[i])


cdef cloned_void _step(Layer* layer, const float* x, int inputs, own_floats state) noexcept nogil:
    """One step of a gated recurrent unit (Cho et al. 2014, as PyTorch writes it)."""
    cdef float[3 * HIDDEN] of_input
    cdef float[3 * HIDDEN] of_state
    cdef float[2 * HIDDEN] gates
    cdef float update, fresh
    cdef int i
    _matvec(x, inputs, layer.of_input, 3 * HIDDEN, layer.input_bias, of_input)
    _matvec(state, HIDDEN, layer.of_state, 3 * HIDDEN, layer.state_bias, of_state)
    _squash(of_input, of_state, 2 * HIDDEN, gates)
    for i in range(HIDDEN):
        update = gates[HIDDEN + i]
        fresh = _tanh(of_input[2 * HIDDEN + i] + gates[i] * of_state[2 * HIDDEN + i])
        state[i] = update * state[i] + (1 - update) * fresh


cdef inline void _butterfly(float* re, float* im, float* re2, float* im2, float w, float v) noexcept nogil:
    """The sum to the first, the difference times the twiddle w + iv to the second."""
    cdef float a = re[0] - re2[0], b = im[0] - im2[0]
    re[0] += re2[0]
    im[0] += im2[0]
    re2[0] = a * w - b * v
    im2[0] = a * v + b * w


cdef cloned_void _butterflies(
    own_floats re, own_floats im, own_floats re2, own_floats im2, const float* w, const float* v, int n
) noexcept nogil:
    """n radix-2 butterflies side by side."""
    cdef int j
    for j in range(n):
        _butterfly(re + j, im + j, re2 + j, im2 + j, w[j], v[j])


cdef cloned_void _equal_butterflies(
    own_floats re, own_floats im, own_floats re2, own_floats im2, float w, float v, int n
) noexcept nogil:
    """The same with one twiddle for all."""
    cdef int j
    for j in range(n):
        _butterfly(re + j, im + j, re2 + j, im2 + j, w, v)


cdef void _fft(float* re, float* im, int n) noexcept nogil:
    """Complex FFT of n = 128 or 256 points, decimation in frequency (Gentleman & Sande 1966); bin k ends at _places[k].

    Once the butterflies are sixteen apart, the blocks of sixteen that remain are turned, so that all blocks lie side by
    side and the rest can go on in vectors too.
    """
    cdef float[HALF] turned
    cdef int lanes = n // 16, half = n // 2, p, q, j
    while half >= 16:
        p = 0
        while p < n:
            q = p + half
            _butterflies(re + p, im + p, re + q, im + q, _cos + half, _sin + half, half)
            p += 2 * half
        half //= 2
    _turn(re, turned, lanes)
    _turn(im, turned, lanes)
    while half >= 1:
        for j in range(8):
            p = (j // half * 2 * half + j % half) * lanes
            q = p + half * lanes
            _equal_butterflies(re + p, im + p, re + q, im + q, _cos[half + j % half], _sin[half + j % half], lanes)
        half //= 2


cdef cloned_void _turn(own_floats x, own_floats turned, int blocks) noexcept nogil:
    """Sample j of block i from 16 * i + j to blocks * j + i."""
    cdef int i, j
    for j in range(16):
        for i in range(blocks):
            turned[blocks * j + i] = x[16 * i + j]
    memcpy(x, turned, 16 * blocks * sizeof(float))


cdef void _transform(const float* x, int n, float* out_re, float* out_im) noexcept nogil:
    """Bins 0 to n of the transform of 2n real samples, from a complex one of half the size."""
    cdef float[HALF] re
    cdef float[HALF] im
    cdef float er, ei, dr, di, wr, wi
    cdef const int* places = _places[n // HALF]
    cdef int k, p, q
    for k in range(n):
        re[k] = x[2 * k]
        im[k] = x[2 * k + 1]
    _fft(re, im, n)
    out_re[0], out_im[0] = re[0] + im[0], 0
    out_re[n], out_im[n] = re[0] - im[0], 0
    for k in range(1, n // 2 + 1):
        p, q = places[k], places[n - k]
        er, ei = <float>0.5 * (re[p] + re[q]), <float>0.5 * (im[p] - im[q])
        dr, di = <float>0.5 * (im[p] + im[q]), <float>0.5 * (re[q] - re[p])
        wr, wi = _cos[n + k] * dr - _sin[n + k] * di, _cos[n + k] * di + _sin[n + k] * dr
        out_re[k], out_im[k] = er + wr, ei + wi
        out_re[n - k], out_im[n - k] = er - wr, wi - ei


cdef cloned_void _multiply(const float* x, const float* y, int n, own_floats out) noexcept nogil:
    cdef int k
    for k in range(n):
        out[k] = x[k] * y[k]


cdef cloned_void _squares(const float* re, const float* im, int n, own_floats power) noexcept nogil:
    cdef int k
    for k in range(n):
        power[k] = re[k] * re[k] + im[k] * im[k]


cdef int _borrow(object frame, Py_buffer* buffer) except -1:
    PyObject_GetBuffer(frame, buffer, PyBUF_SIMPLE)
    cdef Py_ssize_t size = buffer.len
    if size != 2 * FRAME:
        PyBuffer_Release(buffer)
        raise ValueError(f"a frame has {FRAME} 16-bit samples ({2 * FRAME} bytes), not {size} bytes")
    return 0


cdef class VoiceGate:
    """Judges for each frame of 20 ms (320 samples, s16 at 16 kHz) whether it is speech.

    The features are the levels of 28 bands of the last 32 ms, each also relative to an adaptive noise floor, and
    how periodic the signal is at the pitches of voices. `threshold` is the probability that counts as speech; half of
    it keeps it so. Frames that are quieter than any speech cost next to nothing.

    `instant` is the network's probability for the last frame, and what is decided by. `probability` is the greater of
    it and its mean over the recent past: it lasts through the short gaps inside words, as people label speech.
    """

    cdef readonly float probability
    cdef readonly float instant
    cdef float mean
    cdef float[RECENT] recent
    cdef int place
    cdef double threshold
    cdef bint open, seen
    cdef int quiet, age
    cdef int64_t energy
    cdef float[WINDOW] window
    cdef float[BANDS] floor
    cdef float[INPUTS] inputs
    cdef Memory memory, fresh

    def __cinit__(self, double threshold=0.5):
        if not 0 < threshold < 1:
            raise ValueError(f"threshold is a probability between 0 and 1, not {threshold}")
        self.threshold = threshold
        self._rewind()

    cdef void _rewind(self) noexcept:
        self.probability = self.instant = self.mean = 0.0
        self.open = False
        self.quiet = 0
        self.energy = 0
        self.place = 0
        memset(self.recent, 0, sizeof(self.recent))
        memset(self.window, 0, sizeof(self.window))
        self.seen = False
        self.age = 0
        memset(&self.memory, 0, sizeof(Memory))

    @property
    def power(self):
        """Mean square of the last frame, in units of s16."""
        return self.energy / <double>FRAME

    @property
    def confidence(self):
        """Mean probability of speech over the last tenth of a second."""
        cdef float total = 0
        cdef int i
        for i in range(RECENT):
            total += self.recent[i]
        return total / RECENT

    def is_speech(self, frame):
        """Return whether the next frame is speech. `frame`: 640 bytes, 20 ms of s16 at 16 kHz."""
        cdef Py_buffer buffer
        _borrow(frame, &buffer)
        with nogil:
            self._judge(buffer.buf)
        PyBuffer_Release(&buffer)
        return self.open

    def features(self, frame):
        """Return the network's input for the next frame, INPUTS times float32. For training, instead of `is_speech`."""
        cdef Py_buffer buffer
        _borrow(frame, &buffer)
        with nogil:
            self._take(buffer.buf)
            self._describe()
        PyBuffer_Release(&buffer)
        return PyBytes_FromStringAndSize(<const char*>self.inputs, sizeof(self.inputs))

    cdef void _judge(self, const void* frame) noexcept nogil:
        self._take(frame)
        self.quiet = self.quiet + 1 if self.energy < QUIETEST else 0
        if self.quiet > SETTLING:
            self.instant = 0.0
        else:
            self._describe()
            self._think()
            self._rest()
        self.recent[self.place] = self.instant
        self.place = self.place + 1 if self.place < RECENT - 1 else 0
        self.open = self.instant > (self.threshold * 0.5 if self.open else self.threshold)
        self.mean += <float>(1 - SMOOTHING) * (self.instant - self.mean)
        self.probability = self.instant if self.instant > self.mean else self.mean

    cdef void _rest(self) noexcept nogil:
        """In quiet, change to a young memory, so that a word is judged alike however long the quiet lasts."""
        self.age = 0 if self.open else self.age + 1
        if self.age % WARMING:
            return
        if self.age >= RESTLESS or (self.age >= CALM and self.instant < CALM_BELOW):
            self.memory = self.fresh
            self.age = 0
        memset(&self.fresh, 0, sizeof(Memory))

    cdef void _take(self, const void* frame) noexcept nogil:
        memmove(self.window, self.window + FRAME, (WINDOW - FRAME) * sizeof(float))
        _widen_and_square(frame, self.window + WINDOW - FRAME, &self.energy)

    cdef void _describe(self) noexcept nogil:
        cdef float[WINDOW] x
        cdef float[HALF + 1] re
        cdef float[HALF + 1] im
        cdef float[HALF + 1] power
        cdef float[BANDS + 2] bands
        cdef float level, best, part
        cdef int i, k
        _multiply(self.window, _hann, WINDOW, x)
        _transform(x, HALF, re, im)
        _squares(re, im, HALF + 1, power)
        for i in range(BANDS + 2):
            bands[i] = 1000.0  # about the power in a band of noise of one step: keeps digital silence in range
        for i in range(BANDS + 1):
            for k in range(_edges[i], _edges[i + 1]):
                part = _rising[k] * power[k]
                bands[i + 1] += part
                bands[i] += power[k] - part
        for i in range(BANDS):
            level = _log2(bands[i + 1])
            if not self.seen:
                self.floor[i] = level
            self.floor[i] += (<float>0.25 if level < self.floor[i] else <float>0.005) * (level - self.floor[i])
            self.inputs[i] = level
            self.inputs[BANDS + i] = level - self.floor[i]
        self.seen = True
        # The autocorrelation is the transform of the power, here of what lies between 60 Hz and 4 kHz.
        x[0] = x[1] = x[HALF // 2] = x[HALF - 1] = 0
        for k in range(2, HALF // 2):
            x[k] = x[HALF - k] = power[k]
        _transform(x, HALF // 2, re, im)
        for i in range(LAGS):
            best = 0
            for k in range(_lags[i], _lags[i + 1]):
                level = re[k] * _unbias[k]
                best = level if level > best else best
            self.inputs[2 * BANDS + i] = best / (re[0] + <float>1000.0)

    cdef void _think(self) noexcept nogil:
        cdef float[INPUTS] x
        cdef float[DENSE] y
        cdef float total = OUT_BIAS
        cdef int i
        for i in range(INPUTS):
            x[i] = (self.inputs[i] - MEAN[i]) * SCALE[i]
        _matvec(x, INPUTS, _dense, DENSE, DENSE_BIAS, y)
        for i in range(DENSE):
            y[i] = _tanh(y[i])
        _remember(&self.memory, y)
        if self.age >= CALM - WARMING:
            _remember(&self.fresh, y)
        for i in range(HIDDEN):
            total += OUT_WEIGHTS[i] * self.memory.second[i]
        self.instant = _sigmoid(total)


cdef inline void _remember(Memory* memory, const float* x) noexcept nogil:
    _step(&_layers[0], x, DENSE, memory.first)
    _step(&_layers[1], memory.first, HIDDEN, memory.second)


cdef cloned_void _widen_and_square(const void* frame, float* out, int64_t* energy) noexcept nogil:
    cdef int16_t[FRAME] x  # the frame may lie at an odd address
    cdef int64_t total = 0
    cdef int i
    memcpy(x, frame, sizeof(x))
    for i in range(FRAME):
        total += <int32_t>x[i] * <int32_t>x[i]
        out[i] = x[i]
    energy[0] = total
