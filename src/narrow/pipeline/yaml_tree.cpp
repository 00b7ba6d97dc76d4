// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/yaml_tree.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <cctype>
#include <sstream>
#include <utility>

#include "narrow/core/error.h"

namespace narrow {
namespace {

[[noreturn]] void fail_at(std::string_view source, const YAML::Mark& mark, std::string_view what) {
  throw Error(ErrorCode::invalid_argument,
              fmt::format("{}:{}:{}: {}", source, mark.line + 1, mark.column + 1, what));
}

/// Builds the tree from events and stops at the first thing that a recipe does not need.
class TreeBuilder : public YAML::EventHandler {
 public:
  explicit TreeBuilder(std::string_view source) : source_(source) { stack_.reserve(kMaxYamlDepth); }

  YamlNode take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    refuse_anchor(mark, anchor);
    add(mark, YamlNode::Kind::null, {});
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    fail_at(source_, mark, "aliases are not supported");
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    refuse_anchor(mark, anchor);
    refuse_tag(mark, tag);
    add(mark, YamlNode::Kind::scalar, value);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlNode::Kind::sequence);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlNode::Kind::map);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Open {
    YamlNode node;
    YamlNode key;
    bool has_key = false;
  };

  void refuse_anchor(const YAML::Mark& mark, YAML::anchor_t anchor) const {
    if (anchor != 0) fail_at(source_, mark, "anchors are not supported");
  }
  void refuse_tag(const YAML::Mark& mark, const std::string& tag) const {
    // "?" is a plain scalar, "!" a quoted one.
    if (!tag.empty() && tag != "?" && tag != "!") fail_at(source_, mark, "tags are not supported");
  }
  YamlNode make(const YAML::Mark& mark, YamlNode::Kind kind, std::string text) {
    if (++nodes_ > kMaxYamlNodes) fail_at(source_, mark, "too many values");
    YamlNode node;
    node.kind = kind;
    node.text = std::move(text);
    node.line = mark.line + 1;
    node.column = mark.column + 1;
    return node;
  }
  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
            YamlNode::Kind kind) {
    refuse_anchor(mark, anchor);
    refuse_tag(mark, tag);
    if (stack_.size() >= kMaxYamlDepth) fail_at(source_, mark, "nested too deeply");
    if (wants_key()) fail_at(source_, mark, "a key must be a plain word");
    stack_.push_back({make(mark, kind, {}), {}, false});
  }
  void close() {
    YamlNode done = std::move(stack_.back().node);
    stack_.pop_back();
    attach(std::move(done));
  }
  void add(const YAML::Mark& mark, YamlNode::Kind kind, std::string text) {
    if (wants_key()) {
      if (kind != YamlNode::Kind::scalar) fail_at(source_, mark, "a key must be a plain word");
      Open& map = stack_.back();
      for (const auto& [key, value] : map.node.entries) {
        if (key.text == text) {
          fail_at(source_, mark,
                  fmt::format("'{}' stands here again, first in line {}", text, key.line));
        }
      }
      map.key = make(mark, kind, std::move(text));
      map.has_key = true;
      return;
    }
    attach(make(mark, kind, std::move(text)));
  }
  bool wants_key() const {
    return !stack_.empty() && stack_.back().node.kind == YamlNode::Kind::map &&
           !stack_.back().has_key;
  }
  void attach(YamlNode node) {
    if (stack_.empty()) {
      root_ = std::move(node);
      return;
    }
    Open& parent = stack_.back();
    if (parent.node.kind == YamlNode::Kind::sequence) {
      parent.node.items.push_back(std::move(node));
    } else {
      parent.node.entries.push_back({std::move(parent.key), std::move(node)});
      parent.has_key = false;
    }
  }

  std::string_view source_;
  std::vector<Open> stack_;
  YamlNode root_;
  size_t nodes_ = 0;
};

bool is_plain_word(std::string_view text, YamlContext context) {
  if (text.empty()) return false;
  const auto is_word = [](unsigned char c) {
    return (c < 0x80 && std::isalnum(c) != 0) || c == '_' || c == '/' || c == '.';
  };
  if (!is_word(static_cast<unsigned char>(text[0])) || text.back() == ':') return false;
  const std::string_view extra = context == YamlContext::block ? "-+:,=*" : "-+:=*";
  return std::all_of(text.begin(), text.end(), [&](char c) {
    return is_word(static_cast<unsigned char>(c)) || extra.find(c) != std::string_view::npos;
  });
}

/// Words that other YAML readers take for null or a boolean.
bool is_reserved(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const char* word : {"null", "yes", "no", "on", "off", "y", "n"}) {
    if (lower == word) return true;
  }
  return false;
}

}  // namespace

std::string yaml_place(std::string_view source, const YamlNode& node) {
  return fmt::format("{}:{}:{}", source, node.line, node.column);
}

YamlNode parse_yaml(std::string_view text, std::string_view source) {
  if (text.size() > kMaxYamlBytes) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{}: {} bytes are too many for a recipe", source, text.size()));
  }
  try {
    std::istringstream in{std::string(text)};
    YAML::Parser parser(in);
    TreeBuilder builder(source);
    if (!parser.HandleNextDocument(builder)) return {};
    TreeBuilder second(source);
    if (parser.HandleNextDocument(second)) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("{}: a second document follows the first", source),
                  "one file holds one recipe");
    }
    return builder.take();
  } catch (const YAML::Exception& e) {
    fail_at(source, e.mark, e.msg);
  }
}

std::string yaml_scalar(std::string_view text, YamlContext context) {
  if (is_plain_word(text, context) && !is_reserved(text)) return std::string(text);
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  return out + '"';
}

}  // namespace narrow
