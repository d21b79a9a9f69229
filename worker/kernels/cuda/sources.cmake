# The CUDA backend's sources: kernels, for nvcc or the emulation of tests/, and the host part in C.
# Included by the product and by the tests, which build them for a device that is emulated.
set(cuda_dir ${PROJECT_SOURCE_DIR}/worker/kernels/cuda)
set(CLOISTER_CUDA_KERNELS
  ${cuda_dir}/attention.cu
  ${cuda_dir}/attention_merge.cu
  ${cuda_dir}/elements.cu
  ${cuda_dir}/join.cu
  ${cuda_dir}/matmul_blocks.cu
  ${cuda_dir}/matmul_floats.cu
  ${cuda_dir}/matmul_supers.cu
  ${cuda_dir}/pick.cu
  ${cuda_dir}/rope.cu
  ${cuda_dir}/rows.cu
  ${cuda_dir}/weight_embed.cu
  ${cuda_dir}/weight_pack.cu)
set(CLOISTER_CUDA_HOST
  ${cuda_dir}/cuda_act.c
  ${cuda_dir}/cuda_attention.c
  ${cuda_dir}/cuda_backend.c
  ${cuda_dir}/cuda_error.c
  ${cuda_dir}/cuda_exchange.c
  ${cuda_dir}/cuda_graph.c
  ${cuda_dir}/cuda_held.c
  ${cuda_dir}/cuda_kv.c
  ${cuda_dir}/cuda_matmul.c
  ${cuda_dir}/cuda_memory.c
  ${cuda_dir}/cuda_room.c
  ${cuda_dir}/cuda_rows.c
  ${cuda_dir}/cuda_step.c
  ${cuda_dir}/cuda_stream.c
  ${cuda_dir}/cuda_weight.c)
