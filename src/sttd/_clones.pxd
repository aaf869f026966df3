"""Functions that are compiled once for each generation of x86-64; the loader picks the best that the CPU has.

Give a `nogil` function the return type `cloned_void`. It changes speed only: no compiler flag lets sums be
reordered or products be fused, so every version, and every architecture, computes the same bits.
"""

cdef extern from *:
    """
    #if defined(__x86_64__) && defined(__GLIBC__) && __GNUC__ >= 12 && !defined(__clang__) && !defined(STTD_NO_CLONES)
    #define STTD_CLONED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
    #else
    #define STTD_CLONED
    #endif
    #define STTD_CLONED_VOID STTD_CLONED void
    typedef float* __restrict__ sttd_own_floats;
    """
    ctypedef void cloned_void "STTD_CLONED_VOID"
    ctypedef float* own_floats "sttd_own_floats"  # overlaps nothing else that the function is given
