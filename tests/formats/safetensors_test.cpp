// SPDX-License-Identifier: Apache-2.0
#include "narrow/formats/safetensors/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <functional>

#include "narrow/core/error.h"
#include "narrow/core/rng.h"
#include "support.h"

namespace narrow {
namespace {

namespace fs = std::filesystem;

class SafetensorsTest : public ::testing::Test {
 protected:
  fs::path write_file(const std::string& name, const std::string& json,
                      const std::string& data) const {
    std::ofstream out(folder_ / name, std::ios::binary);
    const uint64_t length = json.size();
    out.write(reinterpret_cast<const char*>(&length), 8);
    out << json << data;
    return folder_ / name;
  }
  const testing::TemporaryFolder temporary_;
  const fs::path& folder_ = temporary_.path();
};

/// The file of this header and so many data bytes.
SafetensorsFile parsed(const std::string& json, size_t data_bytes) {
  std::string bytes(8, '\0');
  const uint64_t length = json.size();
  std::memcpy(bytes.data(), &length, 8);
  bytes += json;
  bytes.append(data_bytes, '\1');
  const auto owner = std::make_shared<std::string>(bytes);
  return SafetensorsFile::parse(
      owner, {reinterpret_cast<const std::byte*>(owner->data()), owner->size()}, "test");
}

void expect_error(const std::function<void()>& act, ErrorCode code, const std::string& part) {
  try {
    act();
    ADD_FAILURE() << "no error; expected: " << part;
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
  }
}

std::string item(const std::string& name, const std::string& dtype, const std::string& shape,
                 const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
         ",\"data_offsets\":" + offsets + "}";
}

TEST_F(SafetensorsTest, ReadsWhatItsOwnPackageWrote) {
  // Made by tests/goldens/make_safetensors.py with the `safetensors` package.
  const auto file = SafetensorsFile::open(NARROW_SOURCE_DIR "/tests/goldens/small.safetensors");
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"format", "pt"}, {"ö", "ü\n"}}));
  const Tensor f32 = file.tensor("a.f32");
  EXPECT_EQ(f32.dims(), (Dims{2, 3}));
  EXPECT_EQ(f32.to_floats(), (std::vector<float>{0, 0.5f, 1, 1.5f, 2, 2.5f}));
  EXPECT_EQ(file.tensor("b.f16").to_floats(), (std::vector<float>{-1, 65504, 0.25f}));
  EXPECT_EQ(file.tensor("c.i64").to_ints(), (std::vector<int64_t>{-5, int64_t{1} << 40}));
  EXPECT_EQ(file.tensor("d.u8").to_ints(), (std::vector<int64_t>{0, 255, 7}));
  EXPECT_EQ(file.tensor("e.bool").to_ints(), (std::vector<int64_t>{1, 0}));
  EXPECT_EQ(file.tensor("f.scalar").dims(), Dims{});
  EXPECT_EQ(file.tensor("f.scalar").item<double>(), 0.1);
  EXPECT_EQ(file.tensor("g.empty").dims(), (Dims{0, 4}));
  EXPECT_EQ(file.entries().size(), 7u);
}

TEST_F(SafetensorsTest, WritesWhatItReads) {
  const std::map<std::string, Tensor> tensors = {
      {"odd", Tensor::from<uint8_t>({1, 2, 3}, {3})},
      {"half", Tensor::from_floats(std::vector<float>{1, -2, 0.5f}, DType::bfloat16, {1, 3})},
      {"wide", Tensor::from<int64_t>({-1, 1}, {2})},
      {"na\"me\n", Tensor::scalar(2.5f)},
      {"none", Tensor(DType::float16, {0})},
  };
  const std::map<std::string, std::string> metadata = {{"format", "pt"}, {"k", "\"v\""}};
  const fs::path path = folder_ / "a.safetensors";
  write_safetensors(path, tensors, metadata);
  const auto file = SafetensorsFile::open(path);
  EXPECT_EQ(file.metadata(), metadata);
  ASSERT_EQ(file.entries().size(), tensors.size());
  for (const auto& [name, t] : tensors) {
    EXPECT_TRUE(identical(file.tensor(name), t)) << name;
    if (t.bytes() > 0) {
      EXPECT_EQ(file.tensor(name).raw(), file.find(name)->bytes.data()) << name << " was copied";
    }
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 1);
}

TEST_F(SafetensorsTest, TheWriterTakesPiecesAndCountsThem) {
  const fs::path path = folder_ / "b.safetensors";
  const std::vector<std::byte> six(6, std::byte{9});
  {
    SafetensorsWriter writer(path, {{"x", DType::uint8, {2}}, {"y", DType::float32, {1}}});
    EXPECT_EQ(writer.items()[0].name, "y");
    writer.write(std::span(six).first(3));
    expect_error([&] { writer.commit(); }, ErrorCode::invalid_argument, "3 bytes are missing");
    expect_error([&] { writer.write(six); }, ErrorCode::invalid_argument, "6 bytes");
    writer.write(std::span(six).first(3));
    EXPECT_FALSE(fs::exists(path));
    writer.commit();
  }
  EXPECT_EQ(SafetensorsFile::open(path).tensor("x").to_ints(), (std::vector<int64_t>{9, 9}));
  using Items = std::vector<SafetensorsWriter::Item>;
  const auto refused = [&](const Items& items, ErrorCode code, const std::string& part) {
    expect_error([&] { SafetensorsWriter(folder_ / "c", items); }, code, part);
  };
  const DType u8 = DType::uint8;
  refused({{"x", u8, {1}}, {"x", u8, {1}}}, ErrorCode::invalid_argument, "'x'");
  refused({{"", u8, {1}}}, ErrorCode::invalid_argument, "''");
  refused({{"__metadata__", u8, {1}}}, ErrorCode::invalid_argument, "__metadata__");
  refused({{"x", DType::int4, {2}}}, ErrorCode::unsupported, "int4");
  refused({{"\xff", u8, {1}}}, ErrorCode::invalid_argument, "UTF-8");
  EXPECT_FALSE(fs::exists(folder_ / "c"));
}

TEST_F(SafetensorsTest, MisalignedTensorsAreCopied) {
  const auto file = parsed(
      "{" + item("a", "U8", "[1]", "[0,1]") + "," + item("b", "I16", "[2]", "[1,5]") + "}", 5);
  const Tensor b = file.tensor("b");
  EXPECT_EQ(b.to_ints(), (std::vector<int64_t>{0x101, 0x101}));
}

TEST_F(SafetensorsTest, UnknownDtypesAreListedButNotRead) {
  const auto file = parsed(
      "{" + item("q", "F8_E4M3", "[3]", "[0,3]") + "," + item("z", "NEW9", "[3]", "[3,4]") + "}",
      4);
  EXPECT_EQ(file.find("q")->dtype, DType::undefined);
  expect_error([&] { file.tensor("q"); }, ErrorCode::unsupported, "F8_E4M3");
  expect_error([&] { file.tensor("z"); }, ErrorCode::unsupported, "NEW9");
  expect_error([&] { file.tensor("y"); }, ErrorCode::not_found, "'y'");
}

TEST_F(SafetensorsTest, FilesThatLieAreRefused) {
  const auto refused = [](const std::string& json, size_t bytes, const std::string& part) {
    expect_error([&] { parsed(json, bytes); }, ErrorCode::corrupt_data, part);
  };
  const std::string good = item("a", "F32", "[1]", "[0,4]");
  EXPECT_EQ(parsed("{" + good + "}  ", 4).entries().size(), 1u);
  refused("{" + good + "}", 5, "1 bytes behind");
  refused("{" + good + "}", 3, "'a' lies at bytes 0 to 4 of 3");
  refused("{" + item("a", "F32", "[2]", "[0,4]") + "}", 4, "'a' has 4 bytes, not those of F32[2]");
  refused("{" + good + "," + good + "}", 4, "'a'");
  refused("{" + good + "," + item("a", "U8", "[1]", "[4,5]") + "}", 5, "twice");
  refused("{" + good + "," + item("b", "F32", "[1]", "[2,6]") + "}", 6, "'b' starts at byte 2");
  refused("{" + good + "," + item("b", "U8", "[1]", "[5,6]") + "}", 6, "'b' starts at byte 5");
  refused("{" + item("a", "F32", "[1]", "[4,0]") + "}", 4, "lies at");
  refused("{" + item("a", "F32", "[4611686018427387904,4]", "[0,4]") + "}", 4, "2^62");
  refused("{" + item("a", "F64", "[4611686018427387904]", "[0,0]") + "}", 0, "'a' has 0 bytes");
  refused("{" + item("a", "F32", "[18446744073709551615]", "[0,4]") + "}", 4, "too large");
  refused("{" + item("a", "F32", "[99999999999999999999]", "[0,4]") + "}", 4, "64 bits");
  refused("{" + item("a", "F32", "[-1]", "[0,4]") + "}", 4, "negative");
  refused("{" + item("a", "F32", "[1.0]", "[0,4]") + "}", 4, "not an integer");
  refused("{" + item("a", "F32", "1", "[0,4]") + "}", 4, "a number");
  refused("{" + item("a", "F32", "[[1]]", "[0,4]") + "}", 4, "an array");
  refused("{" + item("a", "F32", "[1]", "[0]") + "}", 4, "two numbers");
  refused("{" + item("a", "F32", "[1]", "[0,4,8]") + "}", 4, "two numbers");
  refused("{" + item("a", "F4", "[3]", "[0,1]") + "}", 1, "has 1 bytes");
  refused(R"({"a":{"dtype":"U8","shape":[0]}})", 0, "lacks");
  refused(R"({"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}})", 0, "twice");
  refused(R"({"a":{"what":1}})", 0, "'what'");
  refused(R"({"a":null})", 0, "null");
  refused(R"({"__metadata__":{"a":1}})", 0, "a number");
  refused(R"({"__metadata__":{"a":"1","a":"2"}})", 0, "twice");
  refused(R"({"__metadata__":{},"__metadata__":{}})", 0, "twice");
  refused("{", 0, "not JSON");
  refused("{} x", 0, "not JSON");
  refused(" {}", 0, "'{'");
  refused("", 0, "'{'");
  refused("[]", 0, "'{'");
  const auto whole = [](const std::string& bytes, const std::string& part) {
    const auto owner = std::make_shared<std::string>(bytes);
    const auto* data = reinterpret_cast<const std::byte*>(owner->data());
    expect_error(
        [&] {
          SafetensorsFile::parse(owner, {data, owner->size()}, "test");
        },
        ErrorCode::corrupt_data, part);
  };
  whole("", "only 0 bytes");
  whole(std::string("\x10\0\0\0\0\0\0\0{}", 10), "16 bytes in a file of 10");
  whole(std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10), "more than");
}

TEST_F(SafetensorsTest, BrokenHeadersNeverCrash) {
  const std::string json = R"({"__metadata__":{"format":"pt"},)" +
                           item("a", "F32", "[1,2]", "[0,8]") + "," +
                           item("b", "BOOL", "[3]", "[8,11]") + "}";
  parsed(json, 11);
  Rng rng(5);
  int refused = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string broken = json;
    broken[rng.below(broken.size())] =
        static_cast<char>(rng.below(2) == 0 ? rng.below(256) : "{}[]\",:0919"[rng.below(11)]);
    try {
      parsed(broken, 11);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::corrupt_data);
      ++refused;
    }
  }
  EXPECT_GT(refused, 1500);
}

TEST_F(SafetensorsTest, ACheckpointFollowsItsIndex) {
  write_safetensors(folder_ / "s-1.safetensors", {{"a", Tensor::scalar(1.0f)}});
  write_safetensors(folder_ / "s-2.safetensors",
                    {{"b", Tensor::scalar(2.0f)}, {"c", Tensor::scalar(3.0f)}});
  const auto index = [&](const std::string& map) {
    write_text(folder_ / "model.safetensors.index.json",
               "{\"metadata\":{},\"weight_map\":" + map + "}");
  };
  const auto open = [&] { return SafetensorsCheckpoint::open(folder_); };
  expect_error(open, ErrorCode::not_found, "2 other .safetensors files");
  index(R"({"c":"s-2.safetensors","a":"s-1.safetensors","b":"s-2.safetensors"})");
  const SafetensorsCheckpoint c = open();
  EXPECT_EQ(c.names(), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(c.files().size(), 2u);
  EXPECT_EQ(c.bytes(), 12u);
  EXPECT_EQ(c.tensor("c").item<float>(), 3.0f);
  EXPECT_EQ(c.find("d"), nullptr);
  expect_error([&] { c.tensor("d"); }, ErrorCode::not_found, "'d'");
  index(R"({"a":"s-1.safetensors","z":"s-9.safetensors"})");
  expect_error(open, ErrorCode::not_found, "s-9.safetensors");
  index(R"({"a":"s-2.safetensors"})");
  expect_error(open, ErrorCode::corrupt_data, "'a' is not in its shard 's-2.safetensors'");
  index(R"({"a":"../s-1.safetensors"})");
  expect_error(open, ErrorCode::corrupt_data, "not the name of a file");
  index(R"({"a":".."})");
  expect_error(open, ErrorCode::corrupt_data, "not the name of a file");
  index(R"({"a":"s-1.safetensors","a":"s-2.safetensors"})");
  expect_error(open, ErrorCode::corrupt_data, "twice");
  index("3");
  expect_error(open, ErrorCode::corrupt_data, "weight_map");
  index("{");
  expect_error(open, ErrorCode::corrupt_data, "not JSON");
  // A whole model wins over the index.
  write_safetensors(folder_ / "model.safetensors", {{"whole", Tensor::scalar(4.0f)}});
  EXPECT_EQ(open().names(), std::vector<std::string>{"whole"});
  EXPECT_EQ(SafetensorsCheckpoint::open(folder_ / "s-1.safetensors").names(),
            std::vector<std::string>{"a"});
  expect_error([&] { SafetensorsCheckpoint::open(folder_ / "no"); }, ErrorCode::not_found, "no");
}

TEST_F(SafetensorsTest, ReadsARealCheckpoint) {
  const fs::path folder = testing::assets() / "novels-7m";
  if (!fs::exists(folder)) GTEST_SKIP() << folder << " is absent";
  const auto c = SafetensorsCheckpoint::open(folder);
  const Tensor embedding = c.tensor("model.embed_tokens.weight");
  EXPECT_EQ(embedding.dtype(), DType::bfloat16);
  EXPECT_EQ(embedding.dims(), (Dims{4096, 256}));
}

}  // namespace
}  // namespace narrow
