// SPDX-License-Identifier: Apache-2.0
#include "narrow/formats/gguf/importance.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <functional>

#include "narrow/core/error.h"
#include "narrow/core/file.h"

namespace narrow {
namespace {

namespace fs = std::filesystem;

fs::path temporary(const std::string& name) {
  return fs::temp_directory_path() / ("narrow_" + std::to_string(::getpid()) + name);
}

ImportanceFile parsed(const std::string& bytes) {
  const auto owner = std::make_shared<std::string>(bytes);
  const auto* data = reinterpret_cast<const std::byte*>(owner->data());
  return parse_importance(owner, {data, owner->size()}, "test");
}

TEST(Importance, ReadsTheGgufForm) {
  const ImportanceFile f = read_importance(NARROW_SOURCE_DIR "/tests/goldens/imatrix.gguf");
  EXPECT_EQ(f.datasets, (std::vector<std::string>{"a.txt", "b.txt"}));
  EXPECT_EQ(f.chunk_count, 7u);
  EXPECT_EQ(f.chunk_size, 512u);
  ASSERT_EQ(f.entries.size(), 2u);
  const ImportanceEntry& down = f.entries.at("blk.0.ffn_down.weight");
  EXPECT_EQ(down.mean_squares(), (std::vector<float>{1, 2, 3, 0}));
  const ImportanceEntry& up = f.entries.at("blk.0.ffn_up_exps.weight");
  EXPECT_EQ(up.experts(), 3u);
  EXPECT_EQ(up.columns(), 2u);
  EXPECT_EQ(up.mean_squares(0), (std::vector<float>{1, 2}));
  EXPECT_EQ(up.mean_squares(1), (std::vector<float>{1, 1}));  // saw nothing
  EXPECT_EQ(up.mean_squares(2), (std::vector<float>{3, 1}));
  EXPECT_THROW(up.mean_squares(3), Error);
}

TEST(Importance, BothFormsRoundTrip) {
  ImportanceFile f;
  f.entries["a.weight"] = {{10, 20, 30, 5}, {1024}};
  f.entries["e.weight"] = {{1, 2, 3, 4}, {512, 1024}};
  f.datasets = {"text.txt"};
  f.chunk_count = 2;
  f.chunk_size = 512;
  const fs::path path = temporary("importance");
  write_importance(f, path);
  const ImportanceFile gguf = read_importance(path);
  EXPECT_EQ(gguf.chunk_size, 512u);
  EXPECT_EQ(gguf.entries.at("e.weight").sums, f.entries["e.weight"].sums);
  EXPECT_EQ(gguf.entries.at("e.weight").counts, f.entries["e.weight"].counts);
  write_importance(f, path, ImportanceForm::dat);
  const ImportanceFile dat = read_importance(path);
  fs::remove(path);
  EXPECT_EQ(dat.chunk_count, 2u);
  EXPECT_EQ(dat.datasets, f.datasets);
  EXPECT_EQ(dat.entries.at("a.weight").counts, std::vector<float>{2});
  EXPECT_EQ(dat.entries.at("a.weight").mean_squares(), f.entries["a.weight"].mean_squares());
  EXPECT_EQ(dat.entries.at("e.weight").mean_squares(),
            (std::vector<float>{1.0f / 512, 2.0f / 512, 3.0f / 1024, 4.0f / 1024}));
}

TEST(Importance, DatFilesThatLieAreRefused) {
  const auto number = [](int32_t x) { return std::string(reinterpret_cast<const char*>(&x), 4); };
  const auto real = [](float x) { return std::string(reinterpret_cast<const char*>(&x), 4); };
  const std::string entry = number(1) + "w" + number(2) + number(2) + real(2) + real(6);
  const ImportanceFile early = parsed(number(1) + entry);
  EXPECT_EQ(early.entries.at("w").mean_squares(), (std::vector<float>{1, 3}));
  const auto refused = [](const std::string& bytes, const std::string& part) {
    try {
      parsed(bytes);
      ADD_FAILURE() << "no error; expected: " << part;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::corrupt_data);
      EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
    }
  };
  refused("", "ends inside");
  refused(number(0), "0 entries");
  refused(number(2) + entry, "ends inside");
  refused(number(2) + entry + entry, "'w' stands there twice");
  refused(number(1) + number(-1), "name of -1 bytes");
  refused(number(1) + number(1 << 30), "name of 1073741824 bytes");
  refused(number(1) + number(1) + "w" + number(1) + number(INT32_MAX), "2147483647 values");
  refused(number(1) + number(1) + "w" + number(1) + number(1) + real(-1), "'w' has a value");
  refused(number(1) + number(1) + "w" + number(1) + number(1) + real(std::nanf("")), "not finite");
  refused(number(1) + number(1) + "w" + number(-5) + number(1) + real(1), "negative");
}

TEST(Importance, OtherGgufFilesAreRefused) {
  EXPECT_THROW(read_importance(NARROW_SOURCE_DIR "/tests/goldens/small.gguf"), Error);
  ImportanceFile f;
  f.entries["x"] = {{1, 2, 3}, {1, 1}};
  EXPECT_THROW(write_importance(f, temporary("bad")), Error);
  EXPECT_FALSE(fs::exists(temporary("bad")));
}

}  // namespace
}  // namespace narrow
