/*
 * kernel_bodies.h - every inner loop of the CPU backend, once, and the table of them. Included by
 * one kernels_<isa>.c per instruction set, after the vec_*.h it is to be compiled over and after
 * BODY_TABLE and BODY_NAME are defined. All of it is static: each instruction set has its own copy.
 */
#include "worker/kernels/cpu/kernels.h"
#include "worker/kernels/numerics.h"
#include "worker/kernels/quant_block.h"
#include "worker/kernels/quant_raw_read.h"
#include "worker/kernels/sum_order.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

_Static_assert(PANEL_ROWS % VEC_LANES == 0, "a panel is whole vectors");

#include "worker/kernels/cpu/body_weights.h"
#include "worker/kernels/cpu/body_pack.h"
#include "worker/kernels/cpu/body_products.h"
#include "worker/kernels/cpu/body_straight.h"
#include "worker/kernels/cpu/body_passage.h"
#ifdef TMUL_ROWS
#include "worker/kernels/cpu/body_tmul.h"
#else
#include "worker/kernels/cpu/body_leaf.h"
#endif
#include "worker/kernels/cpu/body_matmul.h"
#include "worker/kernels/cpu/body_floats.h"
#include "worker/kernels/cpu/body_rows.h"
#include "worker/kernels/cpu/body_attention.h"

const struct cpu_kernels BODY_TABLE = {
    .name = BODY_NAME,
    .pack_panel = {[PANEL_KIND_Q4_0] = body_pack_q4_0,
                   [PANEL_KIND_Q4_1] = body_pack_q4_1,
                   [PANEL_KIND_Q5_0] = body_pack_q5_0,
                   [PANEL_KIND_Q5_1] = body_pack_q5_1,
                   [PANEL_KIND_Q8_0] = body_pack_q8_0,
                   [PANEL_KIND_Q2_K] = body_pack_q2_k,
                   [PANEL_KIND_Q3_K] = body_pack_q3_k,
                   [PANEL_KIND_Q4_K] = body_pack_q4_k,
                   [PANEL_KIND_Q5_K] = body_pack_q5_k,
                   [PANEL_KIND_Q6_K] = body_pack_q6_k,
                   [PANEL_KIND_IQ4_NL] = body_pack_iq4_nl,
                   [PANEL_KIND_IQ4_XS] = body_pack_iq4_xs,
                   [PANEL_KIND_MXFP4] = body_pack_mxfp4},
    .matmul_panels = {[PANEL_KIND_Q4_0] = body_panels_q4_0,
                      [PANEL_KIND_Q4_1] = body_panels_q4_1,
                      [PANEL_KIND_Q5_0] = body_panels_q5_0,
                      [PANEL_KIND_Q5_1] = body_panels_q5_1,
                      [PANEL_KIND_Q8_0] = body_panels_q8_0,
                      [PANEL_KIND_Q2_K] = body_panels_q2_k,
                      [PANEL_KIND_Q3_K] = body_panels_q3_k,
                      [PANEL_KIND_Q4_K] = body_panels_q4_k,
                      [PANEL_KIND_Q5_K] = body_panels_q5_k,
                      [PANEL_KIND_Q6_K] = body_panels_q6_k,
                      [PANEL_KIND_IQ4_NL] = body_panels_iq4_nl,
                      [PANEL_KIND_IQ4_XS] = body_panels_iq4_xs,
                      [PANEL_KIND_MXFP4] = body_panels_mxfp4},
    .matmul_room = body_matmul_room,
    .matmul_rows = body_matmul_rows,
    .quantize = body_quantize,
    .join = body_join,
    .norm = body_norm,
    .norm_add = body_norm_add,
    .softcap = body_softcap,
    .gate = body_gate,
    .rotate = body_rotate,
    .scale = body_scale,
    .halves = body_halves,
    .attention_page = body_attention_page,
    .attention_weights = body_attention_weights,
    .attention_merge = body_attention_merge,
    .attention_finish = body_attention_finish,
};
