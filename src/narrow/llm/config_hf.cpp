// SPDX-License-Identifier: Apache-2.0
// config.json as Hugging Face's transformers writes it, versions 4 and 5 (which keeps everything
// about rope in "rope_parameters").
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "narrow/core/error.h"
#include "narrow/llm/architecture.h"
#include "narrow/llm/config.h"
#include "narrow/llm/tokenizer/json_parts.h"

namespace narrow::llm {
namespace {

using json_parts::Json;

/// Members by the first of several names that the file has.
class Members {
 public:
  explicit Members(const Json& json) : json_(json) {}

  const Json* find(std::initializer_list<const char*> names) const {
    for (const char* name : names) {
      const auto found = json_.find(name);
      if (found != json_.end() && !found->is_null()) return &*found;
    }
    return nullptr;
  }
  int64_t size(std::initializer_list<const char*> names) const {
    const Json* v = find(names);
    if (!v) throw Error(ErrorCode::corrupt_data, fmt::format("{}: is missing", *names.begin()));
    return integer(*v, *names.begin());
  }
  int64_t size_or(std::initializer_list<const char*> names, int64_t fallback) const {
    const Json* v = find(names);
    return v ? integer(*v, *names.begin()) : fallback;
  }
  double real_or(std::initializer_list<const char*> names, double fallback) const {
    const Json* v = find(names);
    if (!v) return fallback;
    if (!v->is_number()) wrong(*names.begin(), "number");
    return v->get<double>();
  }
  bool flag_or(const char* name, bool fallback) const {
    const Json* v = find({name});
    if (!v) return fallback;
    if (!v->is_boolean()) wrong(name, "true or false");
    return v->get<bool>();
  }
  std::string text_or(std::initializer_list<const char*> names, std::string fallback) const {
    const Json* v = find(names);
    if (!v) return fallback;
    if (!v->is_string()) wrong(*names.begin(), "text");
    return v->get<std::string>();
  }
  const Json& json() const { return json_; }

  static int64_t integer(const Json& v, std::string_view name) {
    if (!v.is_number_integer()) wrong(name, "whole number");
    return v.get<int64_t>();
  }

 private:
  [[noreturn]] static void wrong(std::string_view name, std::string_view wanted) {
    throw Error(ErrorCode::corrupt_data, fmt::format("{}: is no {}", name, wanted));
  }
  const Json& json_;
};

[[noreturn]] void unsupported(const std::string& message, std::string hint = {}) {
  throw Error(ErrorCode::unsupported, message, std::move(hint));
}

void read_sizes(const Members& m, ModelConfig& c) {
  c.vocab_size = m.size({"vocab_size"});
  c.hidden_size = m.size({"hidden_size", "n_embd"});
  c.layers = m.size({"num_hidden_layers", "n_layer"});
  c.heads = m.size({"num_attention_heads", "n_head"});
  c.kv_heads = m.size_or({"num_key_value_heads"}, c.heads);
  c.context = m.size({"max_position_embeddings", "n_positions", "n_ctx"});
  // GPT-2 writes null for four times the hidden size.
  const int64_t hidden = std::clamp<int64_t>(c.hidden_size, 0, int64_t{1} << 32);
  c.intermediate_size =
      c.architecture == "gpt2" ? m.size_or({"n_inner"}, 4 * hidden) : m.size({"intermediate_size"});
  if (const Json* dim = m.find({"head_dim"})) {
    c.head_dim = Members::integer(*dim, "head_dim");
  } else if (c.architecture.starts_with("gemma")) {
    c.head_dim = 256;  // what transformers takes where the file says nothing
  } else {
    if (c.heads < 1 || c.hidden_size % c.heads != 0) {
      throw Error(ErrorCode::corrupt_data, fmt::format("hidden_size {} is no multiple of "
                                                       "num_attention_heads {}, and no head_dim",
                                                       c.hidden_size, c.heads));
    }
    c.head_dim = c.hidden_size / c.heads;
  }
  c.norm_eps = m.real_or({"rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps"},
                         c.architecture == "bert" ? 1e-12 : 1e-6);
}

struct ActivationRow {
  std::string_view name;
  Activation activation;
};
constexpr ActivationRow kActivations[] = {
    {"silu", Activation::silu},
    {"swish", Activation::silu},
    {"gelu", Activation::gelu},
    {"gelu_new", Activation::gelu_tanh},
    {"gelu_pytorch_tanh", Activation::gelu_tanh},
    {"gelu_fast", Activation::gelu_tanh},
    {"relu", Activation::relu},
};

void read_activation(const Members& m, std::string fallback, ModelConfig& c) {
  const std::string name =
      m.text_or({"hidden_activation", "hidden_act", "activation_function"}, std::move(fallback));
  for (const ActivationRow& row : kActivations) {
    if (row.name != name) continue;
    c.activation = row.activation;
    return;
  }
  std::string known;
  for (const ActivationRow& row : kActivations) {
    known += fmt::format("{}{}", known.empty() ? "" : ", ", row.name);
  }
  unsupported(fmt::format("hidden_act: '{}' is not known", name), "known are " + known);
}

/// One set of rope's numbers: "rope_scaling", or version 5's "rope_parameters".
void read_scaling(const Json& json, ModelConfig& c) {
  if (!json.is_object()) throw Error(ErrorCode::corrupt_data, "rope_scaling: is no object");
  const Members m(json);
  const std::string type = m.text_or({"rope_type", "type"}, "default");
  if (type == "default") return;
  if (type == "linear") {
    c.rope_scaling = RopeScaling::linear;
    c.rope_factor = m.real_or({"factor"}, 0);
    return;
  }
  if (type != "llama3") {
    unsupported(fmt::format("rope_scaling: the type '{}' is not known", type),
                "known are default, linear, llama3");
  }
  c.rope_scaling = RopeScaling::llama3;
  c.rope_factor = m.real_or({"factor"}, 0);
  c.rope_low_freq_factor = m.real_or({"low_freq_factor"}, 0);
  c.rope_high_freq_factor = m.real_or({"high_freq_factor"}, 0);
  c.rope_original_context = m.size({"original_max_position_embeddings"});
  if (!(c.rope_factor > 0) || !(c.rope_high_freq_factor > c.rope_low_freq_factor)) {
    throw Error(ErrorCode::corrupt_data,
                fmt::format("rope_scaling: factor {}, low_freq_factor {}, high_freq_factor {}",
                            c.rope_factor, c.rope_low_freq_factor, c.rope_high_freq_factor));
  }
}

void read_rope(const Members& m, ModelConfig& c) {
  c.rope_theta = m.real_or({"rope_theta"}, 10000);
  double partial = m.real_or({"partial_rotary_factor"}, 1);
  if (const Json* scaling = m.find({"rope_scaling"})) read_scaling(*scaling, c);
  if (const Json* parameters = m.find({"rope_parameters"})) {
    // By kind of layer where there are two.
    const Json* all = parameters;
    if (parameters->is_object() && parameters->contains("full_attention")) {
      all = &(*parameters)["full_attention"];
      const auto local = parameters->find("sliding_attention");
      if (local != parameters->end() && local->is_object()) {
        c.rope_theta_local = Members(*local).real_or({"rope_theta"}, 10000);
      }
    }
    read_scaling(*all, c);
    c.rope_theta = Members(*all).real_or({"rope_theta"}, c.rope_theta);
    partial = Members(*all).real_or({"partial_rotary_factor"}, partial);
  }
  if (!(partial > 0 && partial <= 1)) {
    throw Error(ErrorCode::corrupt_data, fmt::format("partial_rotary_factor: is {}", partial));
  }
  // A share that stands for a whole number may be less by a rounding.
  c.rope_dim = static_cast<int64_t>(static_cast<double>(c.head_dim) * partial * (1 + 1e-12));
  check_config(c);  // before anything is made of the sizes
  if (c.rope_scaling == RopeScaling::llama3) c.rope_divisors = llama3_rope_divisors(c);
}

/// Which layers have a window: by name, or every layer but each `period`-th.
void read_local_layers(const Members& m, int64_t period, ModelConfig& c) {
  if (const Json* types = m.find({"layer_types"})) {
    if (!types->is_array()) throw Error(ErrorCode::corrupt_data, "layer_types: is no list");
    for (const Json& type : *types) {
      if (type != "sliding_attention" && type != "full_attention") {
        unsupported(fmt::format("layer_types: {} is not known", type.dump()),
                    "known are sliding_attention, full_attention");
      }
      c.local_layers.push_back(type == "sliding_attention");
    }
    return;
  }
  if (period <= 0) return;
  for (int64_t i = 0; i < c.layers; ++i) c.local_layers.push_back((i + 1) % period != 0);
}

void read_llama(const Members& m, ModelConfig& c) {
  read_activation(m, "silu", c);
  c.qkv_bias = c.output_bias = m.flag_or("attention_bias", false);
  c.ffn_bias = m.flag_or("mlp_bias", false);
  if (m.text_or({"model_type"}, "") == "mistral") c.window = m.size_or({"sliding_window"}, 0);
}

void read_qwen(const Members& m, ModelConfig& c) {
  read_activation(m, "silu", c);
  const bool third = c.architecture == "qwen3";
  c.qk_norm = third;
  c.qkv_bias = third ? m.flag_or("attention_bias", false) : true;
  c.output_bias = third && c.qkv_bias;
  if (!m.flag_or("use_sliding_window", false)) return;
  c.window = m.size_or({"sliding_window"}, 0);
  if (m.find({"layer_types"})) {
    read_local_layers(m, 0, c);
  } else {
    const int64_t full = m.size_or({"max_window_layers"}, c.layers);
    for (int64_t i = 0; i < c.layers; ++i) c.local_layers.push_back(i >= full);
  }
}

void read_gemma(const Members& m, ModelConfig& c) {
  const bool third = c.architecture == "gemma3";
  read_activation(m, "gelu_pytorch_tanh", c);
  if (m.flag_or("attention_bias", false)) unsupported("attention_bias: gemma with biases");
  if (m.flag_or("use_bidirectional_attention", false)) {
    unsupported("use_bidirectional_attention: is not known");
  }
  c.norm_placement = NormPlacement::around;
  c.qk_norm = third;
  c.attention_scale = 1 / std::sqrt(m.real_or({"query_pre_attn_scalar"}, 256));
  c.attention_softcap = m.real_or({"attn_logit_softcapping"}, 0);
  c.logit_softcap = m.real_or({"final_logit_softcapping"}, 0);
  c.embedding_scale = std::sqrt(static_cast<double>(c.hidden_size));
  c.window = m.size_or({"sliding_window"}, 4096);
  const int64_t usual = third ? 6 : 2;
  read_local_layers(m, m.size_or({"sliding_window_pattern", "_sliding_window_pattern"}, usual), c);
  if (third && c.rope_theta_local == 0) {
    c.rope_theta_local = m.real_or({"rope_local_base_freq"}, 10000);
  }
}

void read_gpt2(const Members& m, ModelConfig& c) {
  for (const char* option : {"scale_attn_by_inverse_layer_idx", "add_cross_attention"}) {
    if (m.flag_or(option, false)) unsupported(fmt::format("{}: true is not known", option));
  }
  if (!m.flag_or("scale_attn_weights", true)) c.attention_scale = 1;
  read_activation(m, "gelu_new", c);
  c.norm = NormKind::layer;
  c.positions = PositionKind::learned;
  c.gated = false;
  c.qkv_bias = c.output_bias = c.ffn_bias = true;
}

void read_bert(const Members& m, ModelConfig& c) {
  const std::string kind = m.text_or({"position_embedding_type"}, "absolute");
  if (kind != "absolute") unsupported(fmt::format("position_embedding_type: '{}'", kind));
  if (m.flag_or("is_decoder", false)) unsupported("is_decoder: true is not known for bert");
  read_activation(m, "gelu", c);
  c.norm = NormKind::layer;
  c.norm_placement = NormPlacement::after_residual;
  c.positions = PositionKind::learned;
  c.gated = false;
  c.causal = false;
  c.token_types = m.size_or({"type_vocab_size"}, 2);
  c.qkv_bias = c.output_bias = c.ffn_bias = true;
}

int32_t id_of(const Json& v, const char* name) {
  const int64_t id = Members::integer(v, name);
  if (id < -1 || id > INT32_MAX) {
    throw Error(ErrorCode::corrupt_data, fmt::format("{}: is {}", name, id));
  }
  return static_cast<int32_t>(id);
}

void read_ids(const Members& m, ModelConfig& c) {
  // Ids past the vocabulary are defaults of a class that the model never had.
  const auto known = [&c](int32_t id) { return id >= 0 && id < c.vocab_size; };
  if (const Json* v = m.find({"bos_token_id"})) c.bos = id_of(*v, "bos_token_id");
  if (const Json* v = m.find({"pad_token_id"})) c.pad = id_of(*v, "pad_token_id");
  if (!known(c.bos)) c.bos = -1;
  if (!known(c.pad)) c.pad = -1;
  const Json* eos = m.find({"eos_token_id"});
  if (!eos) return;
  const Json list = eos->is_array() ? *eos : Json::array({*eos});
  for (const Json& v : list) {
    const int32_t id = id_of(v, "eos_token_id");
    if (known(id)) c.eos.push_back(id);
  }
}

void read_tied(const Members& m, const HasTensor& has_tensor, ModelConfig& c) {
  const bool usual = c.architecture.starts_with("gemma") || c.architecture == "gpt2";
  if (c.architecture == "bert") return;  // has no output matrix
  c.tied_embedding = m.flag_or("tie_word_embeddings", usual);
  if (!m.find({"tie_word_embeddings"}) && has_tensor) {
    c.tied_embedding = !has_tensor("lm_head.weight");
  }
}

std::string scaling_name(const ModelConfig& c) {
  if (c.rope_scaling == RopeScaling::linear) return "linear";
  return c.rope_scaling == RopeScaling::llama3 ? "llama3" : "";
}

Json scaling_json(const ModelConfig& c) {
  Json s{{"rope_type", scaling_name(c)}, {"factor", c.rope_factor}};
  if (c.rope_scaling != RopeScaling::llama3) return s;
  if (c.rope_original_context == 0 || llama3_rope_divisors(c) != c.rope_divisors) {
    unsupported("rope_freqs.weight: config.json has no place for divisors of frequencies",
                "write GGUF, or start from the model's own config.json");
  }
  s["low_freq_factor"] = c.rope_low_freq_factor;
  s["high_freq_factor"] = c.rope_high_freq_factor;
  s["original_max_position_embeddings"] = c.rope_original_context;
  return s;
}

void write_windows(const ModelConfig& c, Json& j) {
  if (c.window == 0) return;
  j["sliding_window"] = c.window;
  if (c.architecture.starts_with("qwen")) j["use_sliding_window"] = true;
  if (c.local_layers.empty()) return;
  Json types = Json::array();
  for (const bool local : c.local_layers) {
    types.push_back(local ? "sliding_attention" : "full_attention");
  }
  j["layer_types"] = std::move(types);
}

Json gpt2_json(const ModelConfig& c) {
  Json j;
  j["n_embd"] = c.hidden_size;
  j["n_layer"] = c.layers;
  j["n_head"] = c.heads;
  j["n_inner"] = c.intermediate_size;
  j["n_positions"] = c.context;
  j["layer_norm_epsilon"] = c.norm_eps;
  return j;
}

Json common_json(const ModelConfig& c) {
  Json j;
  j["hidden_size"] = c.hidden_size;
  j["num_hidden_layers"] = c.layers;
  j["num_attention_heads"] = c.heads;
  j["intermediate_size"] = c.intermediate_size;
  j["max_position_embeddings"] = c.context;
  j[c.norm == NormKind::rms ? "rms_norm_eps" : "layer_norm_eps"] = c.norm_eps;
  if (c.token_types != 0) j["type_vocab_size"] = c.token_types;
  if (c.positions == PositionKind::learned) return j;
  j["num_key_value_heads"] = c.kv_heads;
  j["head_dim"] = c.head_dim;
  j["rope_theta"] = c.rope_theta;
  if (c.rope_dim != c.head_dim) {
    j["partial_rotary_factor"] = static_cast<double>(c.rope_dim) / static_cast<double>(c.head_dim);
  }
  if (c.rope_scaling != RopeScaling::none) j["rope_scaling"] = scaling_json(c);
  if (c.rope_theta_local != 0) j["rope_local_base_freq"] = c.rope_theta_local;
  if (c.architecture != "qwen2") j["attention_bias"] = c.qkv_bias;
  if (c.architecture == "llama") j["mlp_bias"] = c.ffn_bias;
  if (c.architecture.starts_with("gemma")) {
    j["query_pre_attn_scalar"] = 1 / (c.attention_scale * c.attention_scale);
    j["attn_logit_softcapping"] = c.attention_softcap != 0 ? Json(c.attention_softcap) : Json();
    j["final_logit_softcapping"] = c.logit_softcap != 0 ? Json(c.logit_softcap) : Json();
  }
  return j;
}

}  // namespace

ModelConfig config_from_hf(std::string_view text, const HasTensor& has_tensor) {
  const Json whole = json_parts::parse(text, "config.json");
  try {
    const std::string type = Members(whole).text_or({"model_type"}, "");
    const Architecture* row = find_hf_architecture(type);
    if (!row) unknown_architecture(type);
    if (whole.contains("quantization_config") && !whole["quantization_config"].is_null()) {
      const Json& q = whole["quantization_config"];
      unsupported(fmt::format("quantization_config: the weights are quantized already ({})",
                              q.is_object() ? q.value("quant_method", "?") : "?"),
                  "start from the model's float checkpoint");
    }
    // Models that also see pictures keep the language model's part apart.
    const auto inner = whole.find("text_config");
    const Members m(inner != whole.end() && inner->is_object() ? *inner : whole);
    ModelConfig c;
    c.architecture = row->name;
    read_sizes(m, c);
    c.attention_scale = 1 / std::sqrt(static_cast<double>(c.head_dim));
    read_ids(m, c);
    if (c.eos.empty() && c.bos < 0) read_ids(Members(whole), c);
    if (row->name == "gpt2") {
      read_gpt2(m, c);
    } else if (row->name == "bert") {
      read_bert(m, c);
    } else {
      read_rope(m, c);
      if (row->name == "llama") read_llama(m, c);
      if (row->name.starts_with("qwen")) read_qwen(m, c);
      if (row->name.starts_with("gemma")) read_gemma(m, c);
    }
    read_tied(m, has_tensor, c);
    check_config(c);
    return c;
  } catch (Error& e) {
    e.add_context("config.json");
    throw;
  } catch (const Json::exception& e) {
    throw Error(ErrorCode::corrupt_data, fmt::format("config.json: {}", e.what()));
  }
}

std::string hf_config_json(const ModelConfig& c, std::string_view dtype) {
  const Architecture* row = find_architecture(c.architecture);
  if (!row) unknown_architecture(c.architecture);
  Json j = c.architecture == "gpt2" ? gpt2_json(c) : common_json(c);
  const bool mistral = c.architecture == "llama" && c.window != 0;
  j["architectures"] = Json::array({mistral ? "MistralForCausalLM" : std::string(row->hf_class)});
  j["model_type"] = mistral ? "mistral" : std::string(row->hf_types.front());
  j["vocab_size"] = c.vocab_size;
  j["torch_dtype"] = dtype;
  j["tie_word_embeddings"] = c.tied_embedding;
  static constexpr const char* kActs[] = {"silu", "gelu", "gelu_pytorch_tanh", "relu"};
  const std::string act = kActs[static_cast<size_t>(c.activation)];
  if (c.architecture == "gpt2") {
    j["activation_function"] = act == "gelu_pytorch_tanh" ? "gelu_new" : act;
  } else {
    j[c.architecture.starts_with("gemma") ? "hidden_activation" : "hidden_act"] = act;
  }
  write_windows(c, j);
  if (c.bos >= 0) j["bos_token_id"] = c.bos;
  if (c.pad >= 0) j["pad_token_id"] = c.pad;
  if (c.eos.size() == 1) j["eos_token_id"] = c.eos.front();
  if (c.eos.size() > 1) j["eos_token_id"] = c.eos;
  return j.dump(2) + "\n";
}

}  // namespace narrow::llm
