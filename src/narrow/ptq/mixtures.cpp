// SPDX-License-Identifier: Apache-2.0
#include "narrow/ptq/mixtures.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>

#include "narrow/core/error.h"
#include "narrow/ptq/options.h"

namespace narrow {
namespace {

using B = BlockType;

constexpr FileFormat kFormats[] = {
    {"q2_k", B::q2_k, 10, 3.0, "smallest; quality suffers"},
    {"q3_k_s", B::q3_k, 11, 3.5, "small"},
    {"q3_k_m", B::q3_k, 12, 3.9, "small, better where it matters"},
    {"q3_k_l", B::q3_k, 13, 4.3, "small, better still"},
    {"iq4_xs", B::iq4_xs, 30, 4.3, "4 bits with uneven levels: the best below q4_k"},
    {"iq4_nl", B::iq4_nl, 25, 4.6, "the same in blocks of 32"},
    {"q4_0", B::q4_0, 2, 4.6, "4 bits, simple and fast"},
    {"q4_k_s", B::q4_k, 14, 4.6, "4 bits"},
    {"q4_k_m", B::q4_k, 15, 4.9, "the usual choice"},
    {"q4_1", B::q4_1, 3, 5.1, "4 bits with offsets"},
    {"q5_0", B::q5_0, 8, 5.6, "5 bits, simple"},
    {"q5_k_s", B::q5_k, 16, 5.5, "5 bits"},
    {"q5_k_m", B::q5_k, 17, 5.7, "close to the float model"},
    {"q5_1", B::q5_1, 9, 6.0, "5 bits with offsets"},
    {"q6_k", B::q6_k, 18, 6.6, "closer"},
    {"q8_0", B::q8_0, 7, 8.5, "hardly to be told from the float model"},
    {"bf16", B::bf16, 32, 16, "float"},
    {"f16", B::f16, 1, 16, "float"},
    {"f32", B::f32, 0, 32, "float"},
};

/// What a tensor does, as far as the rules tell them apart.
enum class Role : uint8_t {
  embedding,
  output,
  attn_v,  // values, also fused with others: attention is most sensitive to them
  attn_k,
  attn_output,
  ffn_down,
  other,
};

bool contains(std::string_view text, std::string_view piece) {
  return text.find(piece) != std::string_view::npos;
}

Role role_of(std::string_view name) {
  if (name == "output.weight") return Role::output;
  if (name == "token_embd.weight" || name == "per_layer_token_embd.weight") return Role::embedding;
  for (const char* v : {"attn_qkv.weight", "attn_kv_b.weight", "attn_v.weight"}) {
    if (contains(name, v)) return Role::attn_v;
  }
  if (contains(name, "attn_k.weight")) return Role::attn_k;
  if (contains(name, "attn_output.weight")) return Role::attn_output;
  if (contains(name, "ffn_down")) return Role::ffn_down;
  return Role::other;
}

/// Why this tensor is not quantized; empty: it is.
std::string float_reason(const MixtureTensor& t) {
  // Tables that are small, read one row at a time, or whose products choose where to go.
  constexpr const char* kSmall[] = {
      "ffn_gate_inp.weight",
      "altup",
      "laurel",
      "per_layer_model_proj",
      "ssm_conv1d",
      "shortconv.conv.weight",
      "time_mix_first.weight",
      "time_mix_w0.weight",
      "time_mix_w1.weight",
      "time_mix_w2.weight",
      "time_mix_v0.weight",
      "time_mix_v1.weight",
      "time_mix_v2.weight",
      "time_mix_a0.weight",
      "time_mix_a1.weight",
      "time_mix_a2.weight",
      "time_mix_g1.weight",
      "time_mix_g2.weight",
      "time_mix_decay_w1.weight",
      "time_mix_decay_w2.weight",
      "time_mix_lerp_fused.weight",
      "attn_rel_b.weight",
      ".position_embd",
      ".patch_embd",
  };
  if (t.dims.size() < 2 || num_elements(t.dims) == t.dims.back()) return "one dimension";
  if (!t.name.ends_with("weight")) return "not a weight";
  if (contains(t.name, "_norm.weight")) return "normalization";
  if (t.name == "position_embd.weight" || t.name == "token_types.weight") return "position table";
  for (const char* part : kSmall) {
    if (contains(t.name, part)) return "small and sensitive";
  }
  return {};
}

/// The number in "blk.17.", or -1.
int64_t layer_of(std::string_view name) {
  int64_t layer = -1;
  if (!name.starts_with("blk.")) return layer;
  std::from_chars(name.data() + 4, name.data() + name.size(), layer);
  return layer;
}

/// The first and last eighth of the layers and every third between them.
bool more_bits(int64_t i, int64_t n) {
  return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

/// Where a tensor stands among those of its role.
struct Place {
  int64_t index = 0;
  int64_t count = 0;
};

bool is(const FileFormat& f, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), f.name) != names.end();
}

B output_type(const FileFormat& f, const ModelTraits& m, int64_t columns) {
  if (m.architecture == "falcon" || columns % codec(f.type).block_values != 0) return B::q8_0;
  return f.type == B::q8_0 ? B::q8_0 : B::q6_k;
}

B value_type(const FileFormat& f, const ModelTraits& m, Place p) {
  const bool shared = m.heads_per_key >= 4;  // the tensor is small beside the queries'
  B type = f.type;
  if (is(f, {"q2_k"})) {
    type = shared ? B::q4_k : B::q3_k;
  } else if (is(f, {"q3_k_m"})) {
    type = p.index < 2 ? B::q5_k : B::q4_k;
  } else if (is(f, {"q3_k_l"})) {
    type = B::q5_k;
  } else if (is(f, {"iq4_nl", "iq4_xs"}) && shared) {
    type = B::q5_k;
  } else if (is(f, {"q4_k_m", "q5_k_m"}) && more_bits(p.index, p.count)) {
    type = B::q6_k;
  } else if (is(f, {"q4_k_s"}) && p.index < 4) {
    type = B::q5_k;
  }
  // The models of 80 layers share their values among eight heads.
  const bool of_70b = m.layers == 80 && (m.architecture == "llama" || m.architecture == "qwen2");
  if (of_70b && (type == B::q3_k || type == B::q4_k)) type = B::q5_k;
  return m.experts == 8 ? B::q8_0 : type;
}

B down_type(const FileFormat& f, const ModelTraits& m, Place p) {
  const bool falcon = m.architecture == "falcon";
  const bool more = more_bits(p.index, p.count);
  const bool early = p.index < p.count / 8;
  if (is(f, {"q2_k"})) return B::q3_k;
  if (is(f, {"q3_k_m"})) {
    if (p.index < p.count / 16) return B::q5_k;
    return !falcon || more ? B::q4_k : B::q3_k;
  }
  if (is(f, {"q3_k_l"})) return falcon ? B::q4_k : B::q5_k;
  if (is(f, {"q4_k_m"})) {
    if (falcon && p.index >= p.count / 16) return more ? B::q5_k : B::q4_k;
    return more || falcon ? B::q6_k : B::q4_k;
  }
  if (is(f, {"q5_k_m"}) && more) return B::q6_k;
  if (!early) return f.type;
  if (is(f, {"iq4_nl", "iq4_xs"}) && !m.importance) return B::q5_k;
  if (is(f, {"q4_k_s"}) && !falcon) return B::q5_k;
  // Weighted errors may grow without bound in a type without offsets.
  if (is(f, {"q4_0"}) && m.importance) return B::q4_1;
  if (is(f, {"q5_0"}) && m.importance) return B::q5_1;
  return f.type;
}

B attention_output_type(const FileFormat& f, const ModelTraits& m) {
  if (m.architecture == "falcon") return is(f, {"q3_k_l"}) ? B::q4_k : f.type;
  if (m.experts == 8) {
    const bool small = is(f, {"q2_k", "q3_k_s", "q3_k_m", "iq4_nl", "q4_k_s", "q4_k_m", "iq4_xs"});
    return small ? B::q5_k : f.type;
  }
  if (is(f, {"q2_k"})) return B::q3_k;
  if (is(f, {"q3_k_m"})) return B::q4_k;
  return is(f, {"q3_k_l"}) ? B::q5_k : f.type;
}

bool is_float(B type) {
  return type == B::f32 || type == B::f16 || type == B::bf16;
}

/// A type of smaller blocks with at least as many bits.
B smaller_blocks(B type) {
  switch (type) {
    case B::q2_k:
    case B::q3_k:
      return B::q4_0;
    case B::iq4_xs:
      return B::iq4_nl;
    case B::q4_k:
      return B::q5_0;
    case B::q5_k:
      return B::q5_1;
    case B::q6_k:
      return B::q8_0;
    default:
      return B::f16;
  }
}

bool fits(B type, int64_t columns) {
  return columns % codec(type).block_values == 0;
}

void fall_back(TypeChoice& c, int64_t columns) {
  if (!c.type || fits(*c.type, columns)) return;
  c.wanted = c.type;
  const B smaller = smaller_blocks(*c.type);
  c.type = fits(smaller, columns) ? smaller : B::f16;
  c.reason =
      fmt::format("rows of {} are no whole blocks of {}", columns, codec(*c.wanted).block_values);
}

class Chooser {
 public:
  Chooser(const FileFormat& format, const ModelTraits& traits,
          std::span<const MixtureTensor> tensors)
      : format_(format), traits_(traits) {
    for (const MixtureTensor& t : tensors) {
      const Role role = role_of(t.name);
      if (role == Role::output) tied_ = false;
      const bool counts = role == Role::attn_v || role == Role::ffn_down;
      if (counts && float_reason(t).empty()) {
        order_.try_emplace({role, layer_of(t.name), t.name}, 0);
      }
    }
    int64_t values = 0;
    int64_t downs = 0;
    for (auto& [key, index] : order_) index = key.role == Role::attn_v ? values++ : downs++;
    values_ = values;
  }

  TypeChoice choose(const MixtureTensor& t) const {
    if (std::string reason = float_reason(t); !reason.empty()) {
      return {B::f32, std::move(reason), std::nullopt};
    }
    TypeChoice c;
    c.type = is_float(format_.type) ? format_.type : quantized_type(t, c.reason);
    fall_back(c, t.dims.back());
    return c;
  }

 private:
  struct Key {
    Role role;
    int64_t layer;
    std::string name;
    auto operator<=>(const Key&) const = default;
  };

  B quantized_type(const MixtureTensor& t, std::string& reason) const {
    const Role role = role_of(t.name);
    B type = format_.type;
    switch (role) {
      case Role::output:
        type = output_type(format_, traits_, t.dims.back());
        break;
      case Role::embedding:
        if (tied_) type = output_type(format_, traits_, t.dims.back());
        break;
      case Role::attn_v:
        type = value_type(format_, traits_, place(role, t.name));
        break;
      case Role::attn_k:
        if (traits_.experts == 8) type = B::q8_0;
        break;
      case Role::attn_output:
        type = attention_output_type(format_, traits_);
        break;
      case Role::ffn_down:
        type = down_type(format_, traits_, place(role, t.name));
        break;
      case Role::other:
        break;
    }
    if (type != format_.type) reason = fmt::format("mixture of {}", format_.name);
    return type;
  }

  Place place(Role role, const std::string& name) const {
    const int64_t layer = layer_of(name);
    const int64_t index = order_.at({role, layer, name});
    if (role == Role::attn_v) return {index, values_};
    // Experts come several to a layer.
    return {traits_.experts > 1 && layer >= 0 ? layer : index, traits_.layers};
  }

  const FileFormat& format_;
  const ModelTraits& traits_;
  bool tied_ = true;  // the embedding serves as the output too
  std::map<Key, int64_t> order_;
  int64_t values_ = 0;
};

void apply_rule(const TensorTypeRule& rule, const MixtureTensor& t, TypeChoice& c) {
  if (rule.type && !is_float(*rule.type) && t.dims.size() < 2) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("'{}' asks for {} in '{}', which has one dimension", rule.match,
                            to_string(*rule.type), t.name),
                "only matrices are quantized; narrow the pattern, for example to '*.weight'");
  }
  c = {rule.type, fmt::format("rule '{}'", rule.match), std::nullopt};
  if (!rule.type) return;
  const std::string reason = c.reason;
  fall_back(c, t.dims.empty() ? 1 : t.dims.back());
  if (c.wanted) c.reason = reason + "; " + c.reason;
}

}  // namespace

std::span<const FileFormat> file_formats() {
  return kFormats;
}

const FileFormat* find_file_format(std::string_view name) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  for (const FileFormat& f : kFormats) {
    if (std::ranges::equal(name, std::string_view(f.name), {}, lower)) return &f;
  }
  return nullptr;
}

int nominal_bits(BlockType type) {
  switch (type) {
    case B::f32:
      return 32;
    case B::f16:
    case B::bf16:
      return 16;
    case B::q8_0:
      return 8;
    case B::q6_k:
      return 6;
    case B::q5_0:
    case B::q5_1:
    case B::q5_k:
      return 5;
    case B::q4_0:
    case B::q4_1:
    case B::q4_k:
    case B::iq4_nl:
    case B::iq4_xs:
      return 4;
    case B::q3_k:
      return 3;
    case B::q2_k:
      return 2;
  }
  return 0;
}

std::vector<TypeChoice> choose_types(const FileFormat& format, const ModelTraits& traits,
                                     std::span<const MixtureTensor> tensors,
                                     std::span<const TensorTypeRule> rules) {
  const Chooser chooser(format, traits, tensors);
  std::vector<TypeChoice> choices;
  choices.reserve(tensors.size());
  for (const MixtureTensor& t : tensors) choices.push_back(chooser.choose(t));
  for (const TensorTypeRule& rule : rules) {
    bool matched = false;
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (!glob_match(rule.match, tensors[i].name)) continue;
      matched = true;
      apply_rule(rule, tensors[i], choices[i]);
    }
    if (!matched) {
      throw Error(ErrorCode::invalid_argument, fmt::format("no tensor is called '{}'", rule.match),
                  "`narrow inspect MODEL --nodes` lists the tensors");
    }
  }
  return choices;
}

}  // namespace narrow
