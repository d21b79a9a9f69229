/*
 * even_shape.h - the shape of a model that can be cut into even shares by 2, 4 and 8: four layers
 * of eight heads and as many groups of feed-forward columns. For tests of gangs without a model.
 */
#ifndef CLOISTER_TESTS_SIM_EVEN_SHAPE_H
#define CLOISTER_TESTS_SIM_EVEN_SHAPE_H

#include "common/buf.h"
#include "common/shard_cut.h"

void even_shape_make(struct shard_shape *ret_shape); /* shard_shape_fini frees it */
void even_shape_pack(struct buf *ret_bytes);         /* buf_fini frees it */

#endif
