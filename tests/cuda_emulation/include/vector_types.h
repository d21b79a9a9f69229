/*
 * vector_types.h - CUDA's short vectors and dim3, with its sizes and alignments: the name and the
 * contents of the toolkit's own header, as far as the emulation goes. C and C++.
 */
#ifndef CLOISTER_TESTS_CUDA_EMULATION_VECTOR_TYPES_H
#define CLOISTER_TESTS_CUDA_EMULATION_VECTOR_TYPES_H

#define EMU_VECTOR_ALIGNED(n) __attribute__((aligned(n)))

#define EMU_VECTOR_TYPES(base, type, align2, align4)                                               \
    struct base##1                                                                                 \
    {                                                                                              \
        type x;                                                                                    \
    };                                                                                             \
    struct EMU_VECTOR_ALIGNED(align2) base##2                                                      \
    {                                                                                              \
        type x, y;                                                                                 \
    };                                                                                             \
    struct base##3                                                                                 \
    {                                                                                              \
        type x, y, z;                                                                              \
    };                                                                                             \
    struct EMU_VECTOR_ALIGNED(align4) base##4                                                      \
    {                                                                                              \
        type x, y, z, w;                                                                           \
    };                                                                                             \
    typedef struct base##1 base##1;                                                                \
    typedef struct base##2 base##2;                                                                \
    typedef struct base##3 base##3;                                                                \
    typedef struct base##4 base##4;

EMU_VECTOR_TYPES(char, signed char, 2, 4)
EMU_VECTOR_TYPES(uchar, unsigned char, 2, 4)
EMU_VECTOR_TYPES(short, short, 4, 8)
EMU_VECTOR_TYPES(ushort, unsigned short, 4, 8)
EMU_VECTOR_TYPES(int, int, 8, 16)
EMU_VECTOR_TYPES(uint, unsigned, 8, 16)
EMU_VECTOR_TYPES(float, float, 8, 16)
EMU_VECTOR_TYPES(longlong, long long, 16, 16)
EMU_VECTOR_TYPES(ulonglong, unsigned long long, 16, 16)

#ifdef __cplusplus
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned vx = 1, unsigned vy = 1, unsigned vz = 1) : x(vx), y(vy), z(vz)
    {
    }
    constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z)
    {
    }
};
#else
struct dim3 {
    unsigned x, y, z;
};
#endif
typedef struct dim3 dim3;

#endif
