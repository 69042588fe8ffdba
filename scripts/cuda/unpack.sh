# Sourced on the CUDA machine, after rt.tar.xz was unpacked to /tmp/rt and the pieces of libtensorflow lie in /tmp/p.
mkdir -p /tmp/tfgpu && cat /tmp/p/tf.* | LD_LIBRARY_PATH=/tmp/rt /tmp/rt/zstd -d --long=27 | tar -C /tmp/tfgpu -xf -
nvidia_libs=$(python3 -c 'import nvidia; print(list(nvidia.__path__)[0])')
# the wheel is built for CUDA 12; where only CUDA 13 is there, its libraries answer under the names of 12
link() { local found; found=$(find "$nvidia_libs" -name "$1*" | sort | head -1); [ -n "$found" ] && ln -sf "$found" "/tmp/tfgpu/$2"; }
link libcublas.so.13 libcublas.so.12; link libcublasLt.so.13 libcublasLt.so.12; link libcufft.so.12 libcufft.so.11
link libcusolver.so.12 libcusolver.so.11; link libcusparse.so.12 libcusparse.so.12; link libcudnn.so.9 libcudnn.so.9
link libnccl.so.2 libnccl.so.2; link libcupti.so.13 libcupti.so.12; link libnvJitLink.so.13 libnvJitLink.so.12; link libcurand.so.10 libcurand.so.10
mkdir -p /tmp/rt/runtime/node_modules/@tensorflow/tfjs-node-gpu/deps && ln -sfn /tmp/tfgpu /tmp/rt/runtime/node_modules/@tensorflow/tfjs-node-gpu/deps/lib
ln -sf libtensorflow_cc.so.2 /tmp/tfgpu/libtensorflow.so.2
