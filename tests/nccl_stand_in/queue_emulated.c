/* The stand-in's work goes on streams of the emulated device. */
#include "tests/cuda_emulation/emulation.h"

__attribute__((visibility("default"))) void nccl_stand_in_queue(void *stream, bool (*turn)(void *),
                                                                void *arg);

void nccl_stand_in_queue(void *stream, bool (*turn)(void *), void *arg)
{
    emu_stream_outside(stream, turn, arg);
}
