// SPDX-License-Identifier: Apache-2.0
#include "narrow/core/memory.h"

#include <gtest/gtest.h>

#include "support.h"

namespace narrow {
namespace {

constexpr uint64_t kUnknown = UINT64_MAX;

class MemoryTest : public ::testing::Test {
 protected:
  void machine(const std::string& available) {
    folder_.write("proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    " + available + " kB\n");
  }
  void two(const std::string& group, const std::string& limit, const std::string& used,
           const std::string& files = "0") {
    const std::string at = "sys/fs/cgroup/" + group;
    folder_.write(at + "memory.max", limit + "\n");
    folder_.write(at + "memory.current", used + "\n");
    folder_.write(at + "memory.stat", "anon 7\nfile " + files + "\nfile_mapped 99\n");
  }
  uint64_t available() const { return available_memory(folder_.path()); }
  testing::TemporaryFolder folder_;
};

TEST_F(MemoryTest, OfTheMachine) {
  EXPECT_EQ(available(), kUnknown);
  machine("2000");
  EXPECT_EQ(available(), 2000u * 1024);
  machine("nothing");
  EXPECT_EQ(available(), kUnknown);
}

TEST_F(MemoryTest, OfTheGroupAndThoseAroundIt) {
  machine("2000");
  folder_.write("proc/self/cgroup", "0::/outer/inner\n");
  two("outer/inner/", "max", "70000");
  EXPECT_EQ(available(), 2000u * 1024);
  two("outer/", "100000", "70000", "20000");  // pages of files are given back
  EXPECT_EQ(available(), 50000u);
  two("outer/inner/", "60000", "50000");
  EXPECT_EQ(available(), 10000u);
  two("outer/inner/", "60000", "70000");
  EXPECT_EQ(available(), 0u);
  folder_.write("proc/self/cgroup", "0::/../elsewhere\n");
  EXPECT_EQ(available(), 2000u * 1024);
}

TEST_F(MemoryTest, OfTheFirstVersion) {
  machine("2000");
  folder_.write("proc/self/cgroup", "5:cpu,cpuacct:/a\n4:memory:/a\nbroken\n");
  folder_.write("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "90000\n");
  folder_.write("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "40000\n");
  folder_.write("sys/fs/cgroup/memory/a/memory.stat", "cache 5\ntotal_cache 10000\n");
  EXPECT_EQ(available(), 60000u);
}

TEST(Memory, OfThisMachine) {
  EXPECT_GT(available_memory(), uint64_t{1} << 24);
}

}  // namespace
}  // namespace narrow
