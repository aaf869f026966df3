# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True, freethreading_compatible=True
"""Compiled kernels of the audio path: sample formats, resampling, the voice gate's features, a ring buffer.

Everything here works on bytes-like objects and knows nothing of sessions. Inner loops run without the GIL.
Samples are counted per channel and called frames where there may be several channels.
"""
from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize
from libc.math cimport M_PI, fabs, lrintf, log10, sin, sqrt
from libc.stdint cimport int16_t, int32_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memmove

DEF MAX_CHANNELS = 8
DEF MAX_FRAME_BYTES = 32
DEF BLOCK = 1024  # input frames converted at a time: the working set stays in the first-level cache
DEF LANES = 8  # partial sums of one filter output, in a fixed order, so that compilers may vectorise them

cdef enum Encoding:
    S16LE
    S24LE
    S32LE
    F32LE
    U8
    MULAW
    ALAW

_ENCODINGS = {
    "pcm_s16le": (S16LE, 2),
    "pcm_s24le": (S24LE, 3),
    "pcm_s32le": (S32LE, 4),
    "pcm_f32le": (F32LE, 4),
    "pcm_u8": (U8, 1),
    "pcm_mulaw": (MULAW, 1),
    "pcm_alaw": (ALAW, 1),
}

cdef int16_t[256] _mulaw
cdef int16_t[256] _alaw


cdef void _fill_companding_tables() noexcept:
    """ITU-T G.711, decoding tables."""
    cdef int code, bits, exponent, mantissa, value
    for code in range(256):
        bits = ~code & 0xFF
        exponent = (bits >> 4) & 7
        mantissa = bits & 15
        value = (((mantissa << 3) + 0x84) << exponent) - 0x84
        _mulaw[code] = <int16_t>(-value if bits & 0x80 else value)
        bits = code ^ 0x55
        exponent = (bits >> 4) & 7
        mantissa = bits & 15
        value = (mantissa << 4) + 8
        if exponent > 0:
            value = (value + 0x100) << (exponent - 1)
        _alaw[code] = <int16_t>(value if bits & 0x80 else -value)


_fill_companding_tables()


cdef inline float _sample(const uint8_t* p, Encoding encoding) noexcept nogil:
    """One sample as a float in units of s16 (full scale is 32768)."""
    cdef uint32_t bits
    cdef float value
    if encoding == S16LE:
        return <float><int16_t>(p[0] | (p[1] << 8))
    if encoding == F32LE:
        bits = p[0] | (p[1] << 8) | (p[2] << 16) | (<uint32_t>p[3] << 24)
        memcpy(&value, &bits, 4)
        # Far outside full scale and not-a-number would poison the filter's history for good.
        if not (fabs(value) <= 8.0):
            value = 8.0 if value > 0 else (-8.0 if value < 0 else 0.0)
        return value * 32768.0
    if encoding == S24LE:
        bits = (p[0] << 8) | (p[1] << 16) | (<uint32_t>p[2] << 24)
        return <float>(<int32_t>bits >> 8) / 256.0
    if encoding == S32LE:
        bits = p[0] | (p[1] << 8) | (p[2] << 16) | (<uint32_t>p[3] << 24)
        return <float><int32_t>bits / 65536.0
    if encoding == U8:
        return <float>((<int>p[0] - 128) * 256)
    if encoding == MULAW:
        return <float>_mulaw[p[0]]
    return <float>_alaw[p[0]]


cdef void _to_mono(
    const uint8_t* data, Py_ssize_t frames, Encoding encoding, int width, int channels, float* out
) noexcept nogil:
    cdef Py_ssize_t i
    cdef int c
    cdef float total
    cdef float scale = <float>(1.0 / channels)
    if channels == 1:
        for i in range(frames):
            out[i] = _sample(data + i * width, encoding)
        return
    for i in range(frames):
        total = 0.0
        for c in range(channels):
            total += _sample(data + (i * channels + c) * width, encoding)
        out[i] = total * scale


cdef double _bessel_i0(double x) noexcept nogil:
    cdef double total = 1.0, term = 1.0
    cdef int k
    for k in range(1, 64):
        term *= (x / (2.0 * k)) * (x / (2.0 * k))
        total += term
        if term < total * 1e-17:
            break
    return total


cdef inline float _dot(const float* a, const float* b, Py_ssize_t n) noexcept nogil:
    cdef float[LANES] acc
    cdef Py_ssize_t i
    cdef int j
    for j in range(LANES):
        acc[j] = 0.0
    for i in range(0, n, LANES):
        for j in range(LANES):
            acc[j] += a[i + j] * b[i + j]
    return ((acc[0] + acc[4]) + (acc[2] + acc[6])) + ((acc[1] + acc[5]) + (acc[3] + acc[7]))


cdef inline int16_t _round_s16(float value, Py_ssize_t* clipped) noexcept nogil:
    if value >= 32767.5:
        clipped[0] += 1
        return 32767
    if value <= -32768.5:
        clipped[0] += 1
        return -32768
    return <int16_t>lrintf(value)


cdef Py_ssize_t _gcd(Py_ssize_t a, Py_ssize_t b) noexcept:
    while b:
        a, b = b, a % b
    return a


cdef class FilterBank:
    """The polyphase branches of one rate conversion: a Kaiser-windowed sinc, DC gain exactly one per branch.

    The pass band ends at 0.91 of the lower rate's Nyquist frequency, the stop band (100 dB) begins at 1.05 of it.
    Method: J. O. Smith, "Digital Audio Resampling"; Kaiser's formulas for the window.
    Built once per pair of rates and shared by all converters.
    """

    cdef float* taps
    cdef readonly Py_ssize_t up, down, length

    def __init__(self, Py_ssize_t rate_in, Py_ssize_t rate_out):
        if rate_in <= 0 or rate_out <= 0:
            raise ValueError("rates are positive")
        cdef Py_ssize_t divisor = _gcd(rate_in, rate_out)
        self.up = rate_out // divisor
        self.down = rate_in // divisor
        cdef double nyquist = min(rate_in, rate_out) / 2.0
        cdef double width = 0.14 * nyquist / rate_in  # in cycles per input sample, as is cutoff
        cdef double cutoff = 0.98 * nyquist / rate_in
        cdef Py_ssize_t wanted = <Py_ssize_t>((100.0 - 7.95) / (14.36 * width)) + 1
        self.length = (wanted + LANES - 1) // LANES * LANES
        if self.up * self.length > 4_000_000:
            raise ValueError(f"no table for {rate_in} to {rate_out} Hz: the ratio is too fine")
        self.taps = <float*>calloc(self.up * self.length, sizeof(float))
        if self.taps == NULL:
            raise MemoryError
        with nogil:
            self._design(cutoff)

    def __dealloc__(self):
        free(self.taps)

    cdef void _design(self, double cutoff) noexcept nogil:
        cdef double total
        cdef Py_ssize_t phase, j
        cdef float* row
        for phase in range(self.up):
            row = self.taps + phase * self.length
            total = 0.0
            for j in range(self.length):
                total += self._tap(phase, j, cutoff)
            for j in range(self.length):
                row[j] = <float>(self._tap(phase, j, cutoff) / total)

    cdef double _tap(self, Py_ssize_t phase, Py_ssize_t j, double cutoff) noexcept nogil:
        cdef double beta = 0.1102 * (100.0 - 8.7)
        cdef double t = j - (self.length // 2 - 1) - <double>phase / self.up
        cdef double x = t / (self.length / 2.0)
        cdef double angle = 2.0 * M_PI * cutoff * t
        if fabs(x) >= 1.0:
            return 0.0
        return _bessel_i0(beta * sqrt(1.0 - x * x)) * (sin(angle) / angle if angle != 0.0 else 1.0)


cdef class Converter:
    """Turns a stream of bytes in one audio format into 16-bit mono PCM at another rate.

    The output does not depend on how the input is cut: sample frames that a message leaves incomplete are carried
    over. `clipped` counts output samples that saturated. The first output sample lies at the first input sample;
    output lags input by half the filter (`delay`, in input samples), and `flush` gives the rest.
    """

    cdef Encoding encoding
    cdef int width, channels, carried
    cdef bint direct
    cdef FilterBank bank
    cdef float* history
    cdef Py_ssize_t held, phase, skip
    cdef Py_ssize_t clips
    cdef uint8_t[MAX_FRAME_BYTES] carry

    def __cinit__(self, str encoding, int channels, FilterBank bank not None):
        if encoding not in _ENCODINGS:
            raise ValueError(f"unknown encoding {encoding!r}; known: {', '.join(_ENCODINGS)}")
        if not 1 <= channels <= MAX_CHANNELS:
            raise ValueError(f"channels is 1 to {MAX_CHANNELS}, not {channels}")
        kind, width = _ENCODINGS[encoding]
        self.encoding = kind
        self.width = width
        self.channels = channels
        self.bank = bank
        self.direct = bank.up == bank.down
        self.history = <float*>calloc(bank.length + BLOCK, sizeof(float))
        if self.history == NULL:
            raise MemoryError
        self._rewind()

    def __dealloc__(self):
        free(self.history)

    cdef void _rewind(self) noexcept:
        cdef Py_ssize_t i
        self.carried = 0
        self.phase = 0
        self.skip = 0
        self.held = 0 if self.direct else self.bank.length // 2 - 1
        for i in range(self.held):
            self.history[i] = 0.0

    @property
    def delay(self):
        return 0.0 if self.direct else self.bank.length / 2.0

    @property
    def clipped(self):
        return self.clips

    def feed(self, const uint8_t[::1] data not None):
        """Convert `data` (any bytes-like object); returns s16 little-endian bytes, perhaps empty."""
        cdef Py_ssize_t size = data.shape[0]
        cdef Py_ssize_t frame = self.width * self.channels
        cdef Py_ssize_t used = 0, frames
        cdef uint8_t[MAX_FRAME_BYTES] first
        cdef bint whole_carry = False
        if size == 0:
            return b""
        if self.carried:
            while self.carried < frame and used < size:
                self.carry[self.carried] = data[used]
                self.carried += 1
                used += 1
            if self.carried < frame:
                return b""
            memcpy(first, self.carry, frame)
            whole_carry = True
        frames = (size - used) // frame
        cdef Py_ssize_t left = size - used - frames * frame
        cdef const uint8_t* start = &data[0] + used
        cdef bytes out = PyBytes_FromStringAndSize(NULL, 2 * self._bound(frames + whole_carry))
        cdef int16_t* target = <int16_t*>PyBytes_AsString(out)
        cdef Py_ssize_t made = 0
        with nogil:
            if whole_carry:
                made += self._run(first, 1, target)
            made += self._run(start, frames, target + made)
        memcpy(self.carry, start + frames * frame, left)
        self.carried = <int>left
        return out[: 2 * made]

    def flush(self):
        """The tail that the filter still holds; after it the converter is as new (an incomplete frame is dropped)."""
        cdef Py_ssize_t tail = 0 if self.direct else self.bank.length // 2
        cdef bytes out = PyBytes_FromStringAndSize(NULL, 2 * self._bound(tail))
        cdef int16_t* target = <int16_t*>PyBytes_AsString(out)
        cdef Py_ssize_t made = 0, n, i
        with nogil:
            while tail > 0:
                n = min(tail, <Py_ssize_t>BLOCK)
                for i in range(n):
                    self.history[self.held + i] = 0.0
                self.held += n
                made += self._drain(target + made)
                tail -= n
        self._rewind()
        return out[: 2 * made]

    cdef Py_ssize_t _bound(self, Py_ssize_t frames) noexcept:
        return (frames * self.bank.up) // self.bank.down + 2

    cdef Py_ssize_t _run(self, const uint8_t* data, Py_ssize_t frames, int16_t* out) noexcept nogil:
        cdef Py_ssize_t made = 0, n, i
        cdef Py_ssize_t frame = self.width * self.channels
        while frames > 0:
            n = min(frames, <Py_ssize_t>BLOCK)
            _to_mono(data, n, self.encoding, self.width, self.channels, self.history + self.held)
            if self.direct:
                for i in range(n):
                    out[made + i] = _round_s16(self.history[i], &self.clips)
                made += n
            else:
                self.held += n
                made += self._drain(out + made)
            data += n * frame
            frames -= n
        return made

    cdef Py_ssize_t _drain(self, int16_t* out) noexcept nogil:
        """Every output sample whose whole filter window has arrived; then drop the input that none needs again."""
        cdef Py_ssize_t position = self.skip, length = self.bank.length
        cdef Py_ssize_t made = 0
        while position + length <= self.held:
            out[made] = _round_s16(
                _dot(self.history + position, self.bank.taps + self.phase * length, length), &self.clips
            )
            made += 1
            self.phase += self.bank.down
            position += self.phase // self.bank.up
            self.phase %= self.bank.up
        if position >= self.held:  # decimating: the next window begins beyond what is here
            self.skip = position - self.held
            self.held = 0
        else:
            memmove(self.history, self.history + position, (self.held - position) * sizeof(float))
            self.held -= position
            self.skip = 0
        return made


cdef class VoiceGate:
    """Says of each frame whether it sounds like speech: its level in the speech band against an adaptive floor.

    The level is that of the frame between about 150 Hz and 4 kHz (two first-order sections each way). The floor
    follows the lowest smoothed level of the last seconds (minimum statistics, R. Martin 2001, simplified): down
    at once, up slowly. `threshold` is the distance in dB that counts as speech; half of it keeps an utterance going.
    """

    cdef readonly double floor_db, level_db
    cdef double threshold, quietest_db, smooth, lowest
    cdef double hp_x, hp_y, lp1, lp2
    cdef int seen, window
    cdef bint open
    cdef double[8] minima

    def __init__(self, double threshold=7.0, double quietest_db=-58.0, int window=25):
        if threshold <= 0 or window <= 0:
            raise ValueError("threshold and window are positive")
        self.threshold = threshold
        self.quietest_db = quietest_db  # nothing below this level (dB of full scale) is speech
        self.window = window  # frames in each of the eight parts of the floor's memory
        self.reset()

    def reset(self):
        """Forget everything, as at the start of a stream."""
        cdef int i
        self.floor_db = -70.0
        self.level_db = -120.0
        self.smooth = -120.0
        self.lowest = 0.0
        self.hp_x = self.hp_y = self.lp1 = self.lp2 = 0.0
        self.seen = 0
        self.open = False
        for i in range(8):
            self.minima[i] = 0.0

    def is_speech(self, const uint8_t[::1] frame not None):
        """Decide about one frame (s16 bytes at 16 kHz, 10 to 30 ms, always of the same length)."""
        cdef Py_ssize_t n = frame.shape[0] // 2
        if n == 0 or frame.shape[0] % 2:
            raise ValueError("a frame is a whole number of 16-bit samples")
        with nogil:
            self._measure(<const int16_t*>&frame[0], n)
            self._follow()
            self._decide()
        return self.open

    cdef void _measure(self, const int16_t* x, Py_ssize_t n) noexcept nogil:
        cdef double value, y, total = 0.0
        cdef Py_ssize_t i
        for i in range(n):
            value = x[i] / 32768.0
            y = value - self.hp_x + 0.94 * self.hp_y
            self.hp_x = value
            self.hp_y = y
            self.lp1 += 0.79 * (y - self.lp1)
            self.lp2 += 0.79 * (self.lp1 - self.lp2)
            total += self.lp2 * self.lp2
        self.level_db = 10.0 * log10(total / n + 1e-12)

    cdef void _follow(self) noexcept nogil:
        cdef int i
        cdef double low
        if self.seen == 0:
            self.smooth = self.level_db
        self.smooth += 0.4 * (self.level_db - self.smooth)
        if self.smooth < self.lowest:
            self.lowest = self.smooth
        self.seen += 1
        if self.seen % self.window == 0:
            self.minima[(self.seen // self.window) % 8] = self.lowest
            self.lowest = 0.0
        low = self.lowest
        for i in range(8):
            low = min(low, self.minima[i])
        if low < self.floor_db:
            self.floor_db += 0.5 * (low - self.floor_db)
        elif self.seen >= 2 * self.window:  # too early, and the first word would pass for the floor
            self.floor_db += min(0.3, low - self.floor_db)

    cdef void _decide(self) noexcept nogil:
        cdef double above = self.level_db - max(self.floor_db, self.quietest_db - self.threshold)
        self.open = above > (self.threshold * 0.5 if self.open else self.threshold)


cdef class RingBuffer:
    """The last `capacity` samples (s16) of a stream. Appending is O(1) a sample and never allocates.

    Each sample is stored twice, a capacity apart, so that any recent stretch is one contiguous read.
    """

    cdef int16_t* store
    cdef Py_ssize_t size, at, filled

    def __cinit__(self, Py_ssize_t capacity):
        if capacity <= 0:
            raise ValueError("capacity is positive")
        self.store = <int16_t*>calloc(2 * capacity, sizeof(int16_t))
        if self.store == NULL:
            raise MemoryError
        self.size = capacity

    def __dealloc__(self):
        free(self.store)

    def __len__(self):
        return self.filled

    @property
    def capacity(self):
        return self.size

    def append(self, const uint8_t[::1] data not None):
        """Add samples (s16 bytes); the oldest make room."""
        cdef Py_ssize_t n = data.shape[0] // 2
        if data.shape[0] % 2:
            raise ValueError("data is a whole number of 16-bit samples")
        if n == 0:
            return
        cdef const int16_t* source = <const int16_t*>&data[0]
        if n > self.size:
            source += n - self.size
            n = self.size
        cdef Py_ssize_t head = min(n, self.size - self.at)
        with nogil:
            memcpy(self.store + self.at, source, head * 2)
            memcpy(self.store + self.size + self.at, source, head * 2)
            memcpy(self.store, source + head, (n - head) * 2)
            memcpy(self.store + self.size, source + head, (n - head) * 2)
        self.at = (self.at + n) % self.size
        self.filled = min(self.size, self.filled + n)

    def last(self, Py_ssize_t samples):
        """The newest `samples` (or as many as there are), oldest first, as s16 bytes."""
        if samples < 0:
            raise ValueError("samples is not negative")
        samples = min(samples, self.filled)
        cdef Py_ssize_t start = self.at - samples
        if start < 0:
            start += self.size
        return PyBytes_FromStringAndSize(<const char*>(self.store + start), samples * 2)

    def clear(self):
        """Forget all samples."""
        self.at = 0
        self.filled = 0
