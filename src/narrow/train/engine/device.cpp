// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/engine/device.h"

#include <ATen/Context.h>
#include <fmt/format.h>
#include <torch/cuda.h>

#include <charconv>
#include <cstdlib>
#include <string_view>

#include "narrow/core/error.h"

namespace narrow::train {
namespace {

int number_or(std::string_view text, int otherwise) {
  int number = 0;
  const auto end = text.data() + text.size();
  const auto [at, failure] = std::from_chars(text.data(), end, number);
  return failure == std::errc() && at == end ? number : otherwise;
}

}  // namespace

torch::Device open_device(const std::string& name) {
  if (name == "cpu") return torch::kCPU;
  const auto count =
      static_cast<int>(torch::cuda::is_available() ? torch::cuda::device_count() : 0);
  if (count == 0) {
    throw Error(ErrorCode::unsupported,
                fmt::format("--device {}: libtorch {} sees no CUDA device", name, TORCH_VERSION),
                "build libnarrow_train.so with a libtorch for CUDA (scripts/try_libtorch.sh takes "
                "the one of PyPI), or train with --device cpu");
  }
  const char* local = std::getenv("LOCAL_RANK");
  const int index = name.size() > 5 ? number_or(std::string_view(name).substr(5), -1)
                                    : number_or(local != nullptr ? local : "0", 0) % count;
  if (index < 0 || index >= count) {
    throw Error(ErrorCode::unsupported,
                fmt::format("--device {}: there are {} CUDA devices", name, count),
                fmt::format("cuda:0 to cuda:{}", count - 1));
  }
  at::globalContext().setAllowTF32CuBLAS(false);
  at::globalContext().setAllowTF32CuDNN(false);
  at::globalContext().setDeterministicCuDNN(true);
  return {torch::kCUDA, static_cast<c10::DeviceIndex>(index)};
}

}  // namespace narrow::train
