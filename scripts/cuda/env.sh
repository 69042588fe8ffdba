# Sourced on the CUDA machine before any command of this project.
nvidia_libs=$(python3 -c 'import nvidia; print(list(nvidia.__path__)[0])')
export LD_LIBRARY_PATH=/tmp/tfgpu:$nvidia_libs/cu13/lib:$nvidia_libs/cudnn/lib:$nvidia_libs/nccl/lib:/usr/local/cuda/lib64
export PATH=/tmp/rt:$PATH TFJS_MAMBA2_RUNTIME=/tmp/rt/runtime TF_FORCE_GPU_ALLOW_GROWTH=true
export XLA_FLAGS="--xla_gpu_cuda_data_dir=/usr/local/cuda ${XLA_FLAGS:-}"
[ -e node_modules ] || ln -sfn /tmp/rt/node_modules node_modules
