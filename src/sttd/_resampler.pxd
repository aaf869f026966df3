"""The parts of the resampler that `_pcm` drives."""

from libc.stdint cimport int32_t, int64_t

DEF MAX_STAGES = 12


cdef struct Stage:
    # One step of a rate conversion. Output k is the product of the row of its phase and as many samples of the input,
    # from k * down // up on. The phase, k * down % up, says how much later than that sample the output lies.
    # With few phases the outputs of one phase are computed side by side: the input is dealt out to `down` columns,
    # `stride` apart, in which the inputs of such outputs are neighbours; the rows then come in the order of k % up.
    Py_ssize_t up, down, length, centre
    Py_ssize_t span  # the input that one output, or with columns one of each phase, needs
    Py_ssize_t block  # the most new input in one go
    float* taps  # a row of `length` a phase
    bint columns
    Py_ssize_t stride, width, terms
    int32_t* places  # of each term in the columns
    float* spread  # a row of `width` a phase, of which `terms` are used: the taps at those places


cdef struct Line:
    # What one stage of a stream keeps: the input that later outputs need, and the phase of the next output.
    float* history
    Py_ssize_t held, phase


cdef class FilterBank:
    cdef Stage[MAX_STAGES] stages
    cdef readonly int count
    cdef Py_ssize_t block
    cdef readonly Py_ssize_t up, down
    cdef readonly double delay

    cdef int _add(
        self, double rate, Py_ssize_t up, Py_ssize_t down, double cutoff, double slope, double attenuation
    ) except -1


cdef class Resampler:
    cdef FilterBank bank
    cdef Line[MAX_STAGES] lines
    cdef float* memory
    cdef float* columns
    cdef float* output
    cdef int64_t taken, given

    cdef void rewind(self) noexcept
    cdef float* inlet(self) noexcept nogil
    cdef Py_ssize_t run(self, Py_ssize_t n) noexcept nogil
    cdef Py_ssize_t drain(self) noexcept nogil
    cdef Py_ssize_t due(self, Py_ssize_t frames) noexcept
    cdef Py_ssize_t rest(self) noexcept
