// SPDX-License-Identifier: Apache-2.0
// Of libtorch, what the engine uses: tensors, gradients, functions of one's own. torch/torch.h has
// far more and takes twice as long to compile.
#pragma once

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/types.h>
// After the tensors, which it takes as declared.
#include <torch/nn/utils/clip_grad.h>
#include <torch/version.h>
