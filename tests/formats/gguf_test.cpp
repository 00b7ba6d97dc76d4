// SPDX-License-Identifier: Apache-2.0
#include "narrow/formats/gguf/gguf.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "narrow/core/error.h"
#include "narrow/core/rng.h"
#include "support.h"

namespace narrow {
namespace {

namespace fs = std::filesystem;

void expect_error(const std::function<void()>& act, ErrorCode code, const std::string& part) {
  try {
    act();
    ADD_FAILURE() << "no error; expected: " << part;
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
  }
}

fs::path golden(const std::string& name) {
  return fs::path(NARROW_SOURCE_DIR "/tests/goldens") / name;
}

GgufFile parsed(const std::string& bytes) {
  const auto owner = std::make_shared<std::string>(bytes);
  return GgufFile::parse(owner, {reinterpret_cast<const std::byte*>(owner->data()), owner->size()},
                         "test");
}

/// The bytes of a file, put together by hand.
class Builder {
 public:
  template <class T>
  Builder& num(T x) {
    bytes.append(reinterpret_cast<const char*>(&x), sizeof(x));
    return *this;
  }
  Builder& u32(uint32_t x) { return num(x); }
  Builder& u64(uint64_t x) { return num(x); }
  Builder& text(const std::string& s) {
    u64(s.size());
    bytes += s;
    return *this;
  }
  Builder& head(uint64_t tensors, uint64_t metadata, uint32_t version = 3) {
    bytes += "GGUF";
    return u32(version).u64(tensors).u64(metadata);
  }
  Builder& tensor(const std::string& name, const std::vector<uint64_t>& dims, uint32_t type,
                  uint64_t offset) {
    text(name).u32(static_cast<uint32_t>(dims.size()));
    for (const uint64_t d : dims) u64(d);
    return u32(type).u64(offset);
  }
  Builder& data(size_t n) {
    bytes.resize((bytes.size() + 31) / 32 * 32, '\0');
    bytes.append(n, '\1');
    return *this;
  }
  std::string bytes;
};

void refused(const Builder& b, const std::string& part, ErrorCode code = ErrorCode::corrupt_data) {
  expect_error([&] { parsed(b.bytes); }, code, part);
}

class GgufTest : public ::testing::Test {
 protected:
  const testing::TemporaryFolder temporary_;
  const fs::path& folder_ = temporary_.path();
};

TEST_F(GgufTest, ReadsEveryKindOfValue) {
  const GgufFile f = GgufFile::open(golden("small.gguf"));
  EXPECT_EQ(f.version(), 3u);
  EXPECT_EQ(f.alignment(), 32u);
  ASSERT_EQ(f.metadata().size(), 18u);
  EXPECT_EQ(f.metadata()[0].first, "general.architecture");
  EXPECT_EQ(f.metadata_at("general.architecture").as_string(), "llama");
  const std::pair<const char*, int64_t> integers[] = {{"t.u8", 200},
                                                      {"t.i8", -100},
                                                      {"t.u16", 60000},
                                                      {"t.i16", -30000},
                                                      {"t.u32", 4000000000},
                                                      {"t.i32", -2000000000},
                                                      {"t.bool", 1},
                                                      {"t.u64", int64_t{1} << 60},
                                                      {"t.i64", -(int64_t{1} << 60)}};
  for (const auto& [key, value] : integers) {
    EXPECT_EQ(f.metadata_at(key).as_int(), value) << key;
    EXPECT_EQ(f.metadata_at(key).as_float(), static_cast<double>(value)) << key;
  }
  EXPECT_EQ(f.metadata_at("t.f32").as_float(), 0.5);
  EXPECT_EQ(f.metadata_at("t.f64").as_float(), 0.1);
  EXPECT_TRUE(f.metadata_at("t.bool").as_bool());
  EXPECT_EQ(f.metadata_at("t.string").as_string(), "Grüße\n");
  EXPECT_EQ(f.metadata_at("t.strings").as_strings(),
            (std::vector<std::string_view>{"a", "", "ccc"}));
  EXPECT_EQ(f.metadata_at("t.ints").as_ints(), (std::vector<int64_t>{1, -2, 3}));
  EXPECT_EQ(f.metadata_at("t.floats").as_floats(), (std::vector<float>{0.25f, -1.5f}));
  EXPECT_EQ(f.metadata_at("t.bools").as_ints(), (std::vector<int64_t>{1, 0}));
  const std::vector<GgufValue> nested = f.metadata_at("t.nested").as_arrays();
  ASSERT_EQ(nested.size(), 2u);
  EXPECT_EQ(nested[0].as_ints(), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(nested[1].as_ints(), std::vector<int64_t>{3});
  EXPECT_EQ(f.metadata_at("t.strings").describe(), "3 of string");
  EXPECT_EQ(f.metadata_at("t.u8").describe(), "200");
  EXPECT_EQ(f.metadata_at("t.bool").describe(), "true");
  EXPECT_EQ(f.metadata_at("general.architecture").describe(), "\"llama\"");
}

TEST_F(GgufTest, ValuesAreNotTakenForOthers) {
  const GgufFile f = GgufFile::open(golden("small.gguf"));
  const auto wrong = [&](const std::function<void()>& act, const std::string& part) {
    expect_error(act, ErrorCode::corrupt_data, part);
  };
  wrong([&] { f.metadata_at("t.string").as_int(); }, "an integer is wanted");
  wrong([&] { f.metadata_at("t.f32").as_int(); }, "0.5 where an integer");
  wrong([&] { f.metadata_at("t.ints").as_float(); }, "3 of i32 where a number");
  wrong([&] { f.metadata_at("t.u8").as_string(); }, "a text is wanted");
  wrong([&] { f.metadata_at("t.u8").as_bool(); }, "truth value");
  wrong([&] { f.metadata_at("t.strings").as_ints(); }, "array of integers");
  wrong([&] { f.metadata_at("t.ints").as_strings(); }, "array of texts");
  wrong([&] { f.metadata_at("t.ints").as_arrays(); }, "array of arrays");
  wrong([&] { GgufValue().as_int(); }, "nothing");
  wrong([] { GgufValue::u64(~uint64_t{0}).as_int(); }, "too large");
  expect_error([&] { f.metadata_at("t.u9"); }, ErrorCode::not_found, "'t.u9'");
}

TEST_F(GgufTest, ReadsTensors) {
  const GgufFile f = GgufFile::open(golden("small.gguf"));
  ASSERT_EQ(f.tensors().size(), 5u);
  const GgufTensor& cube = f.tensor_at("cube");
  EXPECT_EQ(cube.dims, (Dims{2, 3, 4}));
  EXPECT_EQ(cube.ggml_dims(), (Dims{4, 3, 2}));
  EXPECT_EQ(f.tensor("cube").to_floats()[23], 23.0f);
  EXPECT_EQ(f.tensor("cube").raw(), cube.bytes.data());
  EXPECT_EQ(f.tensor("i32").to_ints(), (std::vector<int64_t>{1, -2}));
  EXPECT_EQ(f.tensor("f16").dtype(), DType::float16);
  const std::vector<float> rows = f.tensor("f32").to_floats();
  const std::vector<float> q8 = f.decoded("q8").to_floats();
  ASSERT_EQ(q8.size(), rows.size());
  for (size_t i = 0; i < rows.size(); ++i) EXPECT_NEAR(q8[i], rows[i], 0.5f / 127);
  EXPECT_EQ(f.decoded("f32").to_floats(), rows);
  EXPECT_STREQ(f.tensor_at("q8").type->name, "Q8_0");
  expect_error([&] { f.tensor("q8"); }, ErrorCode::unsupported, "Q8_0");
  expect_error([&] { f.decoded("i32"); }, ErrorCode::unsupported, "I32");
  expect_error([&] { f.tensor("none"); }, ErrorCode::not_found, "'none'");
}

/// Writes what was read, in pieces of `piece` bytes.
void copy(const GgufFile& f, const fs::path& path, size_t piece) {
  std::vector<GgufWriter::Item> items;
  for (const GgufTensor& t : f.tensors()) items.push_back({t.name, t.type, t.dims});
  GgufWriter writer(path, f.metadata(), items);
  for (const GgufTensor& t : f.tensors()) {
    for (size_t at = 0; at < t.bytes.size(); at += piece) {
      writer.write(t.bytes.subspan(at, std::min(piece, t.bytes.size() - at)));
    }
  }
  writer.commit();
}

void expect_equal_files(const fs::path& a, const fs::path& b) {
  const auto x = MappedFile::open(a);
  const auto y = MappedFile::open(b);
  EXPECT_TRUE(x->text() == y->text()) << a << " and " << b << " differ";
}

TEST_F(GgufTest, ACopyIsTheSameFile) {
  copy(GgufFile::open(golden("small.gguf")), folder_ / "copy.gguf", 7);
  expect_equal_files(golden("small.gguf"), folder_ / "copy.gguf");
}

TEST_F(GgufTest, ACopyOfARealModelIsTheSameFile) {
  const fs::path assets = testing::assets();
  const fs::path model = assets / "stories260k" / "stories260k-f32.gguf";
  if (!fs::exists(model)) GTEST_SKIP() << model << " is absent";
  const GgufFile f = GgufFile::open(model);
  EXPECT_EQ(f.metadata_at("llama.block_count").as_int(), 5);
  EXPECT_EQ(f.metadata_at("tokenizer.ggml.tokens").as_strings().size(), 512u);
  copy(f, folder_ / "copy.gguf", 1 << 20);
  expect_equal_files(model, folder_ / "copy.gguf");
  for (const auto& entry : fs::directory_iterator(assets / "gguf-vocab")) {
    if (entry.path().extension() != ".gguf") continue;
    const GgufFile vocabulary = GgufFile::open(entry.path());
    EXPECT_GT(vocabulary.metadata_at("tokenizer.ggml.tokens").as_strings().size(), 1000u);
  }
}

TEST_F(GgufTest, ValuesMadeHereReadBack) {
  const std::vector<std::string> texts = {"x", ""};
  const std::vector<int32_t> i32s = {-1, 2};
  const std::vector<uint32_t> u32s = {7};
  const std::vector<float> f32s = {0.5f};
  const std::vector<GgufValue> nested = {GgufValue::i32s(i32s), GgufValue::strings(texts)};
  const GgufMetadata metadata = {
      {"a", GgufValue::u8(1)},
      {"b", GgufValue::i8(-1)},
      {"c", GgufValue::u16(2)},
      {"d", GgufValue::i16(-2)},
      {"e", GgufValue::u32(3)},
      {"f", GgufValue::i32(-3)},
      {"g", GgufValue::f32(1.5f)},
      {"h", GgufValue::boolean(true)},
      {"i", GgufValue::string("s")},
      {"j", GgufValue::u64(4)},
      {"k", GgufValue::i64(-4)},
      {"l", GgufValue::f64(2.5)},
      {"m", GgufValue::strings(texts)},
      {"n", GgufValue::i32s(i32s)},
      {"o", GgufValue::u32s(u32s)},
      {"p", GgufValue::f32s(f32s)},
      {"q", GgufValue::booleans({true, false})},
      {"r", GgufValue::arrays(nested)},
      {"general.alignment", GgufValue::u32(64)},
  };
  const fs::path path = folder_ / "v.gguf";
  GgufWriter writer(path, metadata,
                    {{"x", &gguf_type(BlockType::f16), {3}},
                     {"none", &gguf_type(BlockType::q4_k), {0, 256}},
                     {"y", &gguf_type(BlockType::f32), {}}});
  const std::vector<std::byte> bytes(10, std::byte{2});
  writer.write(bytes);
  EXPECT_FALSE(fs::exists(path));
  writer.commit();
  const GgufFile f = GgufFile::open(path);
  EXPECT_EQ(f.metadata(), metadata);
  EXPECT_EQ(f.alignment(), 64u);
  EXPECT_EQ(f.metadata_at("r").as_arrays()[1].as_strings()[0], "x");
  EXPECT_EQ(f.tensor_at("y").dims, Dims{});
  EXPECT_EQ(f.tensor_at("none").bytes.size(), 0u);
  EXPECT_EQ(f.tensor_at("y").bytes.data() - f.tensor_at("x").bytes.data(), 64);
  EXPECT_EQ(f.tensor_at("y").bytes[3], std::byte{2});
}

TEST_F(GgufTest, TheWriterRefusesWhatOthersCouldNotRead) {
  using Items = std::vector<GgufWriter::Item>;
  const auto* f32 = &gguf_type(BlockType::f32);
  const auto* q4 = &gguf_type(BlockType::q4_k);
  const auto bad = [&](const GgufMetadata& metadata, const Items& items, const std::string& part) {
    expect_error([&] { GgufWriter(folder_ / "bad", metadata, items); }, ErrorCode::invalid_argument,
                 part);
  };
  bad({{"k", GgufValue::u8(1)}, {"k", GgufValue::u8(1)}}, {}, "'k'");
  bad({{"", GgufValue::u8(1)}}, {}, "''");
  bad({{"k", GgufValue()}}, {}, "no value");
  bad({{"general.alignment", GgufValue::u32(48)}}, {}, "alignment is 48");
  bad({}, {{"x", f32, {1}}, {"x", f32, {1}}}, "twice");
  bad({}, {{std::string(64, 'n'), f32, {1}}}, "nnn");
  bad({}, {{"x", f32, {1, 1, 1, 1, 1}}}, "5 dimensions");
  bad({}, {{"x", q4, {2, 100}}}, "rows of 100");
  bad({}, {{"x", nullptr, {1}}}, "no type");
  EXPECT_FALSE(fs::exists(folder_ / "bad"));
  GgufWriter writer(folder_ / "short", {}, {{"x", f32, {2}}});
  const std::vector<std::byte> bytes(9);
  writer.write(std::span(bytes).first(5));
  expect_error([&] { writer.commit(); }, ErrorCode::invalid_argument, "'x' lacks 3 bytes");
  expect_error([&] { writer.write(bytes); }, ErrorCode::invalid_argument, "6 bytes too many");
}

TEST_F(GgufTest, FilesThatLieAreRefused) {
  constexpr uint64_t kHuge = uint64_t{1} << 60;
  constexpr uint32_t kU8 = 0;
  constexpr uint32_t kBool = 7;
  constexpr uint32_t kString = 8;
  constexpr uint32_t kArray = 9;
  EXPECT_EQ(parsed(Builder().head(1, 0).tensor("x", {2}, 0, 0).data(8).bytes).tensors().size(), 1u);
  refused(Builder(), "does not start");
  refused(Builder().u32(0x12345678).u32(3), "does not start");
  refused(Builder().head(0, 0, 1), "version 1", ErrorCode::unsupported);
  refused(Builder().head(0, 0, 4), "version 4", ErrorCode::unsupported);
  refused(Builder().head(0, 0, 0x03000000), "big-endian", ErrorCode::unsupported);
  refused(Builder().head(kHuge, 0), "tensors in 0 bytes");
  refused(Builder().head(0, kHuge), "metadata values in 0 bytes");
  Builder cut;
  cut.head(0, 0).bytes.resize(20);
  refused(cut, "ends inside");
  const auto pair = [](uint32_t kind) { return Builder().head(0, 1).text("k").u32(kind); };
  const auto with = [&](uint32_t kind, const std::function<void(Builder&)>& more) {
    Builder b = pair(kind);
    more(b);
    return b;
  };
  refused(with(13, [](Builder& b) { b.u64(0); }), "metadata 'k': 13 is not a kind");
  refused(with(kBool, [](Builder& b) { b.num(uint8_t{2}); }), "2 is not a truth value");
  refused(with(kString, [](Builder& b) { b.u64(kHuge); }), "text of 1152921504606846976 bytes");
  refused(with(kArray, [](Builder& b) { b.u32(kU8).u64(kHuge); }), "values of 1 bytes");
  refused(with(kArray, [](Builder& b) { b.u32(12).u64(~uint64_t{0}).u64(0); }),
          "values of 8 bytes");
  refused(with(kArray, [](Builder& b) { b.u32(kString).u64(kHuge).text("a"); }), "ends inside");
  refused(with(kArray, [](Builder& b) { b.u32(99).u64(0); }), "99 is not a kind");
  refused(with(kArray, [](Builder& b) { b.u32(kBool).u64(1).num(uint8_t{9}); }), "truth value");
  refused(with(kArray,
               [](Builder& b) {
                 for (int i = 0; i < 20; ++i) b.u32(kArray).u64(1);
               }),
          "arrays in each other");
  refused(
      Builder().head(0, 2).text("k").u32(kU8).num(uint8_t{1}).text("k").u32(kU8).num(uint8_t{1}),
      "'k' stands there twice");
  refused(Builder().head(0, 1).text("general.alignment").u32(4).u32(24), "alignment is 24");
  refused(Builder().head(0, 1).text("general.alignment").u32(4).u32(0), "alignment is 0");
}

TEST_F(GgufTest, TensorsThatLieAreRefused) {
  constexpr uint64_t kHuge = uint64_t{1} << 60;
  const auto one = [](const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
    return Builder().head(1, 0).tensor("x", dims, type, offset).data(64);
  };
  refused(one({17}, 0, 0), "'x' of F32 [17] at byte 0 reaches past the 64");
  refused(one({1}, 0, 64), "reaches past");
  refused(one({1}, 0, ~uint64_t{31}), "reaches past");
  refused(one({1}, 0, 4), "not a multiple of 32");
  refused(one({kHuge, kHuge}, 0, 0), "2^62");
  refused(one({uint64_t{1} << 61}, 27, 0), "reaches past");
  refused(one({~uint64_t{0}}, 0, 0), "dimension of");
  refused(one({1, 1, 1, 1, 1}, 0, 0), "5 dimensions");
  refused(one({33}, 8, 0), "not whole blocks of 32 (Q8_0)");
  refused(one({1, 256}, 12, 0), "rows of 1");
  refused(Builder().head(2, 0).tensor("x", {16}, 0, 0).tensor("y", {8}, 0, 32).data(64),
          "'x' and 'y' overlap");
  refused(Builder().head(2, 0).tensor("x", {8}, 0, 0).tensor("x", {8}, 0, 32).data(64), "twice");
  refused(Builder().head(2, 0).tensor("x", {8}, 4, 0).tensor("y", {8}, 99, 32).data(64),
          "'x' (type 4), 'y' (type 99)", ErrorCode::unsupported);
  const GgufFile listed = parsed(one({256}, 34, 0).bytes);
  EXPECT_STREQ(listed.tensor_at("x").type->name, "TQ1_0");
  expect_error([&] { listed.decoded("x"); }, ErrorCode::unsupported, "TQ1_0");
}

TEST_F(GgufTest, BrokenFilesNeverCrash) {
  const auto whole = MappedFile::open(golden("small.gguf"));
  const std::string bytes(whole->text());
  for (size_t i = 0; i < bytes.size() - 32; ++i) {
    EXPECT_THROW(parsed(bytes.substr(0, i)), Error) << i;
  }
  Rng rng(3);
  int refusals = 0;
  for (int i = 0; i < 4000; ++i) {
    std::string broken = bytes;
    broken[rng.below(1100)] = static_cast<char>(rng.below(256));
    try {
      parsed(broken);
    } catch (const Error& e) {
      EXPECT_NE(e.code(), ErrorCode::internal);
      ++refusals;
    }
  }
  EXPECT_GT(refusals, 1000);
}

TEST(GgufTypes, AgreeWithTheCodecs) {
  for (const BlockCodec& c : block_codecs()) {
    const GgufTensorType& t = gguf_type(c.type);
    EXPECT_EQ(t.block_values, c.block_values) << c.name;
    EXPECT_EQ(t.block_bytes, c.block_bytes) << c.name;
    EXPECT_EQ(find_gguf_type(t.number), &t);
  }
  EXPECT_EQ(find_gguf_type(4), nullptr);
}

}  // namespace
}  // namespace narrow
