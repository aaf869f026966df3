# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""Compiled kernels of the audio path: sample formats, conversion, a ring buffer.

Everything here works on bytes-like objects and knows nothing of sessions. Inner loops run without the GIL and
allocate nothing. Samples are counted per channel and called frames where there may be several channels.
"""
from cpython.buffer cimport (
    PyBUF_FORMAT,
    PyBUF_ND,
    PyBUF_SIMPLE,
    PyBUF_STRIDES,
    PyBUF_WRITABLE,
    PyBuffer_FillInfo,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize
from libc.math cimport fabs
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memmove

from sttd._clones cimport cloned_void
from sttd._resampler cimport FilterBank, Resampler

DEF MAX_CHANNELS = 8
DEF MAX_FRAME_BYTES = 32
DEF BLOCK = 1024  # input frames converted at a time, as in _resampler

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


cdef cloned_void _widen(const uint8_t* data, Py_ssize_t n, float* out) noexcept nogil:
    """The plain case of `_to_mono`, s16 of one channel, at the speed of memory. `data` may lie at an odd address."""
    cdef int16_t[BLOCK] x
    cdef Py_ssize_t i
    memcpy(x, data, n * sizeof(int16_t))
    for i in range(n):
        out[i] = x[i]


cdef void _to_mono(
    const uint8_t* data, Py_ssize_t frames, Encoding encoding, int width, int channels, int channel, float* out
) noexcept nogil:
    """At most BLOCK frames as floats in units of s16: one channel, or (channel < 0) the mean of all."""
    cdef Py_ssize_t i
    cdef int c
    cdef float total
    cdef float scale = <float>(1.0 / channels)
    if encoding == S16LE and channels == 1:
        _widen(data, frames, out)
    elif channel >= 0:
        for i in range(frames):
            out[i] = _sample(data + (i * channels + channel) * width, encoding)
    else:
        for i in range(frames):
            total = 0.0
            for c in range(channels):
                total += _sample(data + (i * channels + c) * width, encoding)
            out[i] = total * scale


cdef cloned_void _narrow(const float* x, Py_ssize_t n, int16_t* out) noexcept nogil:
    """Round to the nearest s16, ties to even; what lies outside saturates."""
    cdef Py_ssize_t i
    cdef float value
    # Adding 1.5 * 2**23 leaves a float no room for a fraction; unlike lrintf this is a vector instruction everywhere.
    cdef float magic = 12582912.0
    for i in range(n):
        value = x[i]
        value = value if value < <float>32767.0 else <float>32767.0
        value = value if value > <float>-32768.0 else <float>-32768.0
        out[i] = <int16_t><int32_t>((value + magic) - magic)


cdef struct Levels:
    int64_t samples, total, squares, full, zeros, gap, longest_gap


cdef cloned_void _measure(const int16_t* x, Py_ssize_t n, Levels* levels) noexcept nogil:
    """Count what the signal doctor wants to know of at most BLOCK samples."""
    cdef int32_t total = 0, full = 0, zeros = 0
    cdef int64_t squares = 0
    cdef Py_ssize_t i
    for i in range(n):
        total += x[i]
        squares += <int32_t>x[i] * <int32_t>x[i]
        full += (x[i] >= 32767) | (x[i] <= -32767)
        zeros += x[i] == 0
    levels.samples += n
    levels.total += total
    levels.squares += squares
    levels.full += full
    levels.zeros += zeros
    if zeros == n:
        levels.gap += n
    elif zeros or levels.gap:
        for i in range(n):
            levels.gap = levels.gap + 1 if x[i] == 0 else 0
            levels.longest_gap = max(levels.longest_gap, levels.gap)
    levels.longest_gap = max(levels.longest_gap, levels.gap)


cdef class RingBuffer:
    """The last `capacity` samples (s16) of a stream, by their number since its beginning.

    Appending is O(1) a sample, allocates nothing and keeps no reference to the caller's buffer. Each sample is stored
    twice, a capacity apart, so that any stretch that is kept lies in one piece.
    """

    cdef int16_t* store
    cdef Py_ssize_t size
    cdef int64_t total
    cdef Py_ssize_t[1] shape
    cdef Py_ssize_t[1] strides

    def __cinit__(self, Py_ssize_t capacity):
        if capacity <= 0:
            raise ValueError("capacity is positive")
        self.store = <int16_t*>calloc(2 * capacity, sizeof(int16_t))
        if self.store == NULL:
            raise MemoryError
        self.size = capacity

    def __dealloc__(self):
        free(self.store)

    @property
    def capacity(self):
        return self.size

    @property
    def end(self):
        """Number of the sample after the newest."""
        return self.total

    @property
    def start(self):
        """Number of the oldest sample that is kept."""
        return max(0, self.total - self.size)

    def append(self, data):
        """Append samples (s16 bytes), which overwrite the oldest. Raises ValueError for half a sample."""
        cdef Py_buffer buffer
        PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
        try:
            if buffer.len % 2:
                raise ValueError("data is a whole number of 16-bit samples")
            with nogil:
                self.push(<const int16_t*>buffer.buf, buffer.len // 2)
        finally:
            PyBuffer_Release(&buffer)

    cdef void push(self, const int16_t* source, Py_ssize_t n) noexcept nogil:
        cdef Py_ssize_t at, head
        if n == 0:
            return
        if n > self.size:
            self.total += n - self.size
            source += n - self.size
            n = self.size
        at = self.total % self.size
        head = min(n, self.size - at)
        memmove(self.store + at, source, head * 2)  # the source may be a view of this buffer
        memmove(self.store + self.size + at, self.store + at, head * 2)
        memmove(self.store, source + head, (n - head) * 2)
        memmove(self.store + self.size, self.store, (n - head) * 2)
        self.total += n

    def view(self, int64_t start, int64_t stop):
        """Return samples `start` to `stop` as they lie in memory: a memoryview of s16, without a copy.

        The view is valid until so many samples are appended that the ring buffer overwrites the first of them. Raises
        IndexError if they are not kept.
        """
        cdef Py_ssize_t at = self._place(start, stop)
        return memoryview(self)[at : at + stop - start]

    def read(self, int64_t start, int64_t stop):
        """Return samples `start` to `stop` as bytes. Raises IndexError if they are not kept."""
        cdef Py_ssize_t at = self._place(start, stop)
        return PyBytes_FromStringAndSize(<const char*>(self.store + at), (stop - start) * 2)

    cdef Py_ssize_t _place(self, int64_t start, int64_t stop) except -1:
        if not self.start <= start <= stop <= self.total:
            raise IndexError(f"samples {start} to {stop} are not kept: there are {self.start} to {self.total}")
        return start % self.size

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        if flags & PyBUF_WRITABLE:
            raise BufferError("a ring buffer's samples are read-only")
        PyBuffer_FillInfo(buffer, self, self.store, 4 * self.size, 1, flags)
        buffer.itemsize = 2
        if flags & PyBUF_FORMAT:
            buffer.format = b"h"
        if flags & PyBUF_ND:
            self.shape[0] = 2 * self.size
            buffer.shape = self.shape
        if (flags & PyBUF_STRIDES) == PyBUF_STRIDES:
            self.strides[0] = 2
            buffer.strides = self.strides


cdef class Converter:
    """Turns a stream of bytes in one audio format into 16-bit mono PCM at another rate.

    The output does not depend on how the input is cut: sample frames that a message leaves incomplete are carried
    over. `channel` picks one channel (0 is the first); without it all are averaged. The first output sample lies at
    the first input sample; output lags input by at most `delay` seconds, and `flush` gives the rest. Raises
    RuntimeError if two threads use one converter at the same time.
    """

    cdef Encoding encoding
    cdef int width, channels, channel, carried
    cdef bint busy
    cdef Resampler resampler
    cdef Levels counted
    cdef uint8_t[MAX_FRAME_BYTES] carry

    def __cinit__(self, str encoding, int channels, FilterBank bank not None, channel=None):
        if encoding not in _ENCODINGS:
            raise ValueError(f"unknown encoding {encoding!r}; known: {', '.join(_ENCODINGS)}")
        if not 1 <= channels <= MAX_CHANNELS:
            raise ValueError(f"channels is 1 to {MAX_CHANNELS}, not {channels}")
        if channel is not None and not 0 <= channel < channels:
            raise ValueError(f"channel is 0 to {channels - 1} (there are {channels}), not {channel}")
        kind, width = _ENCODINGS[encoding]
        self.encoding = kind
        self.width = width
        self.channels = channels
        self.channel = -1 if channel is None else channel
        self.resampler = Resampler(bank)

    @property
    def delay(self):
        """The maximum lag of the output behind the input, in seconds."""
        return self.resampler.bank.delay

    @property
    def pending(self):
        """The number of bytes of an incomplete sample frame at the end of the input so far."""
        return self.carried

    def levels(self):
        """Return the statistics of the output so far.

        They are: the number of samples; mean and mean square, as fractions of full scale; the shares of samples at
        full scale and of zeros; the longest run of zeros, in samples.
        """
        cdef Levels* c = &self.counted
        cdef double n = max(c.samples, 1)
        return (
            c.samples, c.total / n / 32768, c.squares / n / 32768 / 32768, c.full / n, c.zeros / n, c.longest_gap
        )

    def feed(self, data):
        """Convert `data` (any bytes-like object); returns s16 little-endian bytes, perhaps empty."""
        cdef Py_buffer buffer
        cdef Py_ssize_t made
        cdef bytes out
        cdef int16_t* target
        self._occupy()
        try:
            PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
            try:
                made = self.resampler.due((self.carried + buffer.len) // self._frame())
                out = PyBytes_FromStringAndSize(NULL, 2 * made)
                target = <int16_t*>PyBytes_AsString(out)
                with nogil:
                    self._run(<const uint8_t*>buffer.buf, buffer.len, target, None)
            finally:
                PyBuffer_Release(&buffer)
        finally:
            self.busy = False
        return out

    def feed_into(self, data, RingBuffer ring not None):
        """Convert `data` and append the result to `ring`; return the number of samples. Saves an object a call."""
        cdef Py_buffer buffer
        cdef Py_ssize_t made
        self._occupy()
        try:
            PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
            try:
                with nogil:
                    made = self._run(<const uint8_t*>buffer.buf, buffer.len, NULL, ring)
            finally:
                PyBuffer_Release(&buffer)
        finally:
            self.busy = False
        return made

    def flush(self):
        """Return the tail that the filters still hold, and begin a new stream.

        Bytes of an incomplete sample frame are dropped, so that they cannot shift all later samples.
        """
        cdef Py_ssize_t made = 0, wanted, n
        cdef bytes out
        cdef int16_t* target
        self._occupy()
        try:
            wanted = self.resampler.rest()
            out = PyBytes_FromStringAndSize(NULL, 2 * wanted)
            target = <int16_t*>PyBytes_AsString(out)
            with nogil:
                while made < wanted:
                    n = min(self.resampler.drain(), wanted - made)
                    _narrow(self.resampler.output, n, target + made)
                    _measure(target + made, n, &self.counted)
                    made += n
            self.resampler.rewind()
            self.carried = 0
        finally:
            self.busy = False
        return out

    cdef int _occupy(self) except -1:
        if self.busy:
            raise RuntimeError("another thread is using this converter")
        self.busy = True
        return 0

    cdef inline Py_ssize_t _frame(self) noexcept nogil:
        return self.width * self.channels

    cdef Py_ssize_t _run(self, const uint8_t* data, Py_ssize_t size, int16_t* out, RingBuffer ring) noexcept nogil:
        """Convert `size` bytes to `out` or, where that is NULL, into `ring`; returns the number of samples."""
        cdef Py_ssize_t frame = self._frame(), made = 0, n
        if self.carried:
            n = min(frame - self.carried, size)
            memcpy(self.carry + self.carried, data, n)
            self.carried += <int>n
            data += n
            size -= n
            if self.carried < frame:
                return 0
            made = self._convert(self.carry, 1, out, ring)
        while size >= frame:
            n = min(size // frame, <Py_ssize_t>BLOCK)
            made += self._convert(data, n, out + made if out != NULL else NULL, ring)
            data += n * frame
            size -= n * frame
        if size:
            memcpy(self.carry, data, size)
        self.carried = <int>size
        return made

    cdef Py_ssize_t _convert(
        self, const uint8_t* data, Py_ssize_t frames, int16_t* out, RingBuffer ring
    ) noexcept nogil:
        """At most BLOCK whole frames."""
        cdef int16_t[BLOCK] samples
        cdef int16_t* target = samples
        cdef Py_ssize_t made, n, i
        _to_mono(data, frames, self.encoding, self.width, self.channels, self.channel, self.resampler.inlet())
        made = self.resampler.run(frames)
        for i in range(0, made, BLOCK):
            n = min(made - i, <Py_ssize_t>BLOCK)
            if out != NULL:
                target = out + i
            _narrow(self.resampler.output + i, n, target)
            _measure(target, n, &self.counted)
            if out == NULL:
                ring.push(target, n)
        return made
