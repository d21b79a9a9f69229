/* Scratch of operations: how much, and all of it at once. */
#include "worker/kernels/cuda/cuda_internal.h"

#include "common/check.h"

static uint64_t room_attention_floats(const struct backend_room *room)
{
    uint64_t count = 0;

    for (uint32_t i = 0; i < room->n_caches; i++) {
        uint64_t of = cuda_attention_floats(&room->cache[i], room->rows_max, room->pages_max);
        count = of > count ? of : count;
    }
    return count;
}

static uint64_t room_step_bytes(const struct backend_room *room)
{
    return cuda_step_layout(room->rows_max, room->n_ropes, room->rope_dim, room->sequences_max,
                            (uint64_t)room->sequences_max * room->pages_max)
        .bytes;
}

uint64_t backend_cuda_room_bytes(const struct backend_room *room)
{
    return cuda_held_bytes(room_attention_floats(room) * sizeof(float)) +
           cuda_held_bytes(room_step_bytes(room));
}

enum err cuda_reserve(struct backend *b, const struct backend_room *room, struct errbuf *eb)
{
    struct cuda_backend *cuda = (struct cuda_backend *)b;
    const uint64_t count = room_attention_floats(room);
    void *attention = NULL;
    CHECK(!cuda->reserved && cuda->attention == NULL && cuda->step_device == NULL);
    enum err err = cuda_alloc(cuda, CUDA_MEMORY_SCRATCH, count * sizeof(float),
                              "room for attention", &attention, eb);
    if (err != ERR_OK)
        return err;
    cuda->attention = attention;
    cuda->attention_count = count;
    err = cuda_step_reserve(cuda, room_step_bytes(room), eb);
    if (err == ERR_OK)
        err = cuda_step_lists_reserve(cuda, room, eb);
    cuda->reserved = err == ERR_OK;
    return err;
}
