// SPDX-License-Identifier: Apache-2.0
#include "narrow/quant/blocks/block_parts.h"

#include "narrow/core/error.h"
#include "narrow/quant/blocks/take_apart.h"

namespace narrow {

using namespace blocks;

const BlockForm* find_form(BlockType type) {
  for (const BlockForm& form : kForms) {
    if (form.type == type) return &form;
  }
  return nullptr;
}

std::span<const BlockForm> block_forms() {
  return kForms;
}

std::span<const int8_t, 16> block_table() {
  return std::span<const int8_t, 16>(kNonlinear);
}

void take_apart(BlockType type, const uint8_t* block, BlockParts& parts) {
  const BlockForm* form = find_form(type);
  if (form == nullptr) {
    throw Error(ErrorCode::invalid_argument, std::string(to_string(type)) + " has no codes");
  }
  take_apart_as(*form, block, parts);
}

int integer_of(const BlockForm& form, uint8_t code) {
  return form.table ? kNonlinear[code & 15] : code - form.zero;
}

float scale_of(const BlockParts& parts, int group) {
  return to_float(Half{parts.d}) * static_cast<float>(parts.scales[group]);
}

float offset_of(const BlockForm& form, const BlockParts& parts, int group) {
  const float m = to_float(Half{parts.m}) * static_cast<float>(parts.offsets[group]);
  return form.values == kSmall ? m : -m;
}

}  // namespace narrow
