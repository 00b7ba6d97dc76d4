// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "data/data_testing.h"
#include "narrow/data/dataset.h"
#include "narrow/data/spec_options.h"

namespace narrow {
namespace {

using testing::error_of;
using testing::expect_contains;

Error refusal(const std::string& text) {
  const Error e = error_of([&] { (void)parse_data_spec(text); });
  EXPECT_EQ(e.code(), ErrorCode::invalid_argument) << text;
  return e;
}

TEST(DataSpec, KindPathAndOptions) {
  const DataSpec spec = parse_data_spec("images:/data/my photos,resize=256,crop=224,gray");
  EXPECT_EQ(spec.kind, "images");
  EXPECT_EQ(spec.path, "/data/my photos");
  EXPECT_EQ(spec.options.at("resize"), "256");
  EXPECT_EQ(spec.options.at("gray"), "true");
  EXPECT_EQ(spec.text(), "images:/data/my photos,crop=224,gray=true,resize=256");
}

TEST(DataSpec, TextReadsBack) {
  for (const char* text :
       {"mnist:/a/b,split=train", "npz:x\\,y.npz", "images:C:\\\\photos,labels=a\\,b.csv",
        "cifar10:.,mean=0.5/0.25/0.125,scale=1/255,std=1/2,samples=10"}) {
    const DataSpec spec = parse_data_spec(text);
    const DataSpec again = parse_data_spec(spec.text());
    EXPECT_EQ(again.kind, spec.kind);
    EXPECT_EQ(again.path, spec.path);
    EXPECT_EQ(again.options, spec.options);
  }
  EXPECT_EQ(parse_data_spec("npz:x\\,y.npz").path, "x,y.npz");
}

TEST(DataSpec, MistakesNameTheNearestKnownWord) {
  expect_contains(refusal("mnits:/data").hint(), "did you mean 'mnist'?");
  expect_contains(refusal("images:/d,reszie=3").hint(), "did you mean 'resize'?");
  expect_contains(refusal("images:/d,layout=nchv").hint(), "did you mean 'nchw'?");
  expect_contains(refusal("mnist:/d,split=tets").hint(), "did you mean 'test'?");
  expect_contains(refusal("mnist:/d,order=bgr").what(), "'order' is no option of mnist data");
  expect_contains(refusal("npz:/d,resize=3").what(), "'resize' is no option of npz data");
}

TEST(DataSpec, MalformedTextIsRefused) {
  for (const char* text :
       {"", ":", "mnist:", "mnist:/d,", "mnist:/d,=3", "mnist:/d,,split=test",
        "mnist:/d,split=test,split=train", "images:/d,resize", "nothing", "/nowhere/at/all"}) {
    (void)refusal(text);
  }
  (void)refusal("mnist:" + std::string(10000, 'x'));
}

TEST(DataSpec, ValuesAreChecked) {
  for (const char* option : {"resize=0",     "resize=-3",
                             "resize=3x",    "resize=x3",
                             "resize=3x4x5", "resize=1e3",
                             "resize=70000", "crop=a",
                             "pad=256",      "pad=-1",
                             "mean=a",       "mean=1/2/3/4",
                             "mean=nan",     "mean=inf/1/1",
                             "std=0",        "std=1/0/1",
                             "std=1/0",      "scale=0",
                             "scale=1/0",    "scale=nan",
                             "scale=1/2/3",  "scale=",
                             "samples=0",    "samples=-1",
                             "samples=1.5",  "samples=99999999999999999999",
                             "layout=x",     "order=grb",
                             "dtype=int8",   "gray=maybe",
                             "labels="}) {
    (void)refusal("images:/d," + std::string(option));
  }
  (void)refusal("images:/d,letterbox=8,resize=8");
  (void)refusal("images:/d,dtype=uint8,scale=1/255");
}

TEST(DataSpec, TypedValues) {
  const SpecOptions o = parse_spec_options(
      parse_data_spec("images:/d,resize=320x240,mean=127,std=0.5/1/2,scale=1/4,order=bgr"));
  EXPECT_EQ(o.resize, (ImageSize{320, 240}));
  ASSERT_EQ(o.mean.size(), 1u);
  EXPECT_EQ(o.mean[0].value(), 127);
  ASSERT_EQ(o.std.size(), 3u);
  EXPECT_EQ(o.std[2].value(), 2);
  EXPECT_EQ(o.scale->value(), 0.25);
  EXPECT_EQ(o.order, ChannelOrder::bgr);
  EXPECT_EQ(o.split, "test");
  const SpecOptions fraction = parse_spec_options(parse_data_spec("mnist:/d,mean=1/2"));
  ASSERT_EQ(fraction.mean.size(), 1u);
  EXPECT_EQ(fraction.mean[0].value(), 0.5);
}

TEST(DataSpec, ABlockInARecipeIsCheckedTheSame) {
  const DataSpec spec{"images", "/d", {{"reszie", "3"}}};
  expect_contains(error_of([&] { (void)open_dataset(spec, {}); }).hint(), "'resize'");
  const DataSpec kind{"imagse", "/d", {}};
  expect_contains(error_of([&] { (void)open_dataset(kind, {}); }).hint(), "'images'");
}

TEST(DataSpec, KindOfAFolderIsSeen) {
  const testing::TemporaryFolder folder;
  folder.write("mnist/t10k-images-idx3-ubyte", "x");
  folder.write("cifar/test_batch.bin", "x");
  folder.write("photos/a.jpg", "x");
  const std::string base = folder.path().string();
  EXPECT_EQ(parse_data_spec(base + "/mnist").kind, "mnist");
  EXPECT_EQ(parse_data_spec(base + "/mnist,split=train").kind, "mnist");
  EXPECT_EQ(parse_data_spec(base + "/cifar").kind, "cifar10");
  EXPECT_EQ(parse_data_spec(base + "/photos").kind, "images");
  EXPECT_EQ(parse_data_spec("some/file.npz").kind, "npz");
}

TEST(DataSpec, EveryOptionIsDocumented) {
  const std::string docs =
      testing::bytes_of(std::filesystem::path(NARROW_SOURCE_DIR) / "docs/data.md");
  for (const DataOption& option : data_options()) {
    expect_contains(docs, std::string("`") + option.name);
    for (const std::string& kind : option.kinds) expect_contains(docs, "`" + kind + ":");
  }
}

}  // namespace
}  // namespace narrow
