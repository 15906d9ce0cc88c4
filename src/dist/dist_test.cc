#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <future>
#include <map>
#include <numeric>
#include <random>
#include <thread>

#include "base/clock.h"
#include "base/random.h"
#include "dist/testing.h"

namespace fathom::dist {
namespace {

using device::DType;
using std::chrono::milliseconds;

constexpr milliseconds kPatient{20'000};
// A timeout to wait for. Ranks must come to each other within it, on a busy machine and under sanitizers too.
constexpr milliseconds kBrief{1000};

// Each test runs on threads of one node (0), and on 1, 2 and 3 nodes that talk through sockets.
class OnNodes : public ::testing::TestWithParam<int> {
 protected:
  static void run_ranks(int size, milliseconds timeout, const std::function<void(Group&)>& fn) {
    dist::run_ranks(make_test_groups(size, GetParam(), timeout), fn);
  }
  static std::map<int, Error> errors_when(int size, int victim, milliseconds timeout,
                                          const std::function<void(Group&)>& fate);
};

std::string node_count(const ::testing::TestParamInfo<int>& info) {
  return info.param == 0 ? "threads" : fmt::format("nodes_{}", info.param);
}
INSTANTIATE_TEST_SUITE_P(Transports, OnNodes, ::testing::Values(0, 1, 2, 3), node_count);

// "rank 2" as errors of a world of one node or of several name it, before `rest`.
bool names(const std::string& message, const std::string& rank, const std::string& rest = {}) {
  const size_t at = message.find(rank + " (node ");
  const size_t end = at == std::string::npos ? at : message.find(')', at) + 1;
  return message.find(rank + rest) != std::string::npos ||
         (end != std::string::npos && message.compare(end, rest.size(), rest) == 0);
}

// What rank r holds at place i of a test's buffer: numbers whose sum depends on the order of addition.
float value(uint64_t seed, int rank, int64_t i) {
  const float magnitude = static_cast<float>(1 << (random_bits(seed, 77, static_cast<uint64_t>(i)) % 20));
  return (random_uniform(seed, static_cast<uint64_t>(rank), static_cast<uint64_t>(i)) - 0.5F) * magnitude;
}
std::vector<float> values(uint64_t seed, int rank, int64_t count) {
  std::vector<float> result;
  for (int64_t i = 0; i < count; ++i) result.push_back(value(seed, rank, i));
  return result;
}
std::vector<float> sum_in_order(uint64_t seed, int size, int64_t count) {
  auto sum = values(seed, 0, count);
  for (int r = 1; r < size; ++r) {
    for (int64_t i = 0; i < count; ++i) sum[static_cast<size_t>(i)] += value(seed, r, i);
  }
  return sum;
}

// Same bits, not only equal numbers.
bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

TEST_P(OnNodes, SumsAddInTheOrderOfRanks) {
  for (const int size : {1, 2, 3, 4, 8}) {
    run_ranks(size, kPatient, [&](Group& group) {
      for (const int64_t count : {0, 1, 7, 64, 1000, 5000}) {
        auto data = values(1, group.rank(), count);
        ASSERT_TRUE(group.all_reduce(data.data(), count, DType::kF32).ok());
        EXPECT_TRUE(same_bits(data, sum_in_order(1, size, count))) << size << " ranks, " << count;
      }
    });
  }
}

TEST_P(OnNodes, SumsOfBfloat16AreRoundedOnce) {
  constexpr int64_t kCount = 700;
  run_ranks(3, kPatient, [](Group& group) {
    const auto bf16 = [](int rank, int64_t i) { return device::f32_to_bf16(value(2, rank, i)); };
    std::vector<device::bf16> data;
    for (int64_t i = 0; i < kCount; ++i) data.push_back(bf16(group.rank(), i));
    ASSERT_TRUE(group.all_reduce(data.data(), kCount, DType::kBF16).ok());
    for (int64_t i = 0; i < kCount; ++i) {
      const float sum =
          device::bf16_to_f32(bf16(0, i)) + device::bf16_to_f32(bf16(1, i)) + device::bf16_to_f32(bf16(2, i));
      ASSERT_EQ(data[static_cast<size_t>(i)], device::f32_to_bf16(sum)) << i;
    }
  });
}

// One random collective, the same on every rank, checked against what each rank is known to hold.
void check_collective(Group& group, uint64_t seed) {
  std::mt19937_64 random(seed);
  const int size = group.size();
  const auto amount = [&] {
    return static_cast<int64_t>(random() % 4 == 0 ? random() % 3000 : random() % 40);
  };
  std::vector<int64_t> counts;
  for (int r = 0; r < size; ++r) counts.push_back(amount());
  const int64_t total = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  const int64_t before = std::accumulate(counts.begin(), counts.begin() + group.rank(), int64_t{0});
  const int64_t mine = counts[static_cast<size_t>(group.rank())];
  const int root = static_cast<int>(random() % static_cast<uint64_t>(size));
  std::vector<float> got;
  std::vector<float> wanted;
  switch (random() % 6) {
    case 0:
      got = values(seed, group.rank(), total);
      ASSERT_TRUE(group.all_reduce(got.data(), total, DType::kF32).ok());
      wanted = sum_in_order(seed, size, total);
      break;
    case 1: {
      const auto send = values(seed, group.rank(), mine);
      got.resize(static_cast<size_t>(total));
      std::vector<int64_t> bytes;
      for (const int64_t count : counts) bytes.push_back(count * static_cast<int64_t>(sizeof(float)));
      ASSERT_TRUE(group.all_gather(send.data(), bytes, got.data()).ok());
      for (int r = 0; r < size; ++r) {
        const auto part = values(seed, r, counts[static_cast<size_t>(r)]);
        wanted.insert(wanted.end(), part.begin(), part.end());
      }
      break;
    }
    case 2: {
      const auto send = values(seed, group.rank(), total);
      got.resize(static_cast<size_t>(mine));
      ASSERT_TRUE(group.reduce_scatter(send.data(), counts, DType::kF32, got.data()).ok());
      const auto sum = sum_in_order(seed, size, total);
      wanted.assign(sum.begin() + before, sum.begin() + before + mine);
      break;
    }
    case 3:
      got = values(seed, group.rank(), total);
      ASSERT_TRUE(group.broadcast(got.data(), total * static_cast<int64_t>(sizeof(float)), root).ok());
      wanted = values(seed, root, total);
      break;
    case 4: {
      // Rank a sends rank b (a + 2 b + counts[a]) values of a stream of their own.
      const auto pair_count = [&](int from, int to) {
        return from + 2 * to + counts[static_cast<size_t>(from)];
      };
      const auto pair = [&](int from, int to) {
        return values(seed + 1000 * static_cast<uint64_t>(from * size + to), from, pair_count(from, to));
      };
      std::vector<std::vector<float>> out;
      std::vector<Outgoing> send;
      std::vector<Incoming> receive;
      int64_t incoming = 0;
      for (int r = 0; r < size; ++r) {
        out.push_back(pair(group.rank(), r));
        incoming += pair_count(r, group.rank());
        const auto part = pair(r, group.rank());
        wanted.insert(wanted.end(), part.begin(), part.end());
      }
      got.resize(static_cast<size_t>(incoming));
      float* to = got.data();
      for (int r = 0; r < size; ++r) {
        const auto& sent = out[static_cast<size_t>(r)];
        send.push_back({sent.data(), static_cast<int64_t>(sent.size() * sizeof(float))});
        receive.push_back({to, pair_count(r, group.rank()) * static_cast<int64_t>(sizeof(float))});
        to += pair_count(r, group.rank());
      }
      ASSERT_TRUE(group.all_to_all(send, receive).ok());
      break;
    }
    default:
      ASSERT_TRUE(group.barrier().ok());
  }
  EXPECT_TRUE(same_bits(got, wanted)) << "seed " << seed << " rank " << group.rank() << " of " << size;
}

TEST_P(OnNodes, RandomCollectives) {
  for (const int size : {2, 3, 5}) {
    run_ranks(size, kPatient, [&](Group& group) {
      for (uint64_t seed = 0; seed < 300 && !::testing::Test::HasFailure(); ++seed)
        check_collective(group, seed * 8 + static_cast<uint64_t>(size));
    });
  }
}

// Ranks in a box: rank = (z * sides[1] + y) * sides[0] + x.
struct Box {
  int sides[3];

  int size() const { return sides[0] * sides[1] * sides[2]; }
  int along(int axis, int rank) const {
    for (int below = 0; below < axis; ++below) rank /= sides[below];
    return rank % sides[axis];
  }
  // The same for those who differ along `axis` only.
  int colour(int axis, int rank) const {
    int step = 1;
    for (int below = 0; below < axis; ++below) step *= sides[below];
    return rank - along(axis, rank) * step;
  }
};

TEST_P(OnNodes, SplitsByTheAxesOfABox) {
  for (const Box box : {Box{{2, 2, 2}}, Box{{4, 1, 1}}, Box{{1, 3, 2}}, Box{{3, 2, 1}}}) {
    run_ranks(box.size(), kPatient, [&](Group& world) {
      const int rank = world.rank();
      auto x = world.split(box.colour(0, rank), "x").value();
      auto y = world.split(box.colour(1, rank), "y").value();
      auto z = world.split(box.colour(2, rank), "z").value();
      int axis = 0;
      for (const Group* group : {x.get(), y.get(), z.get()}) {
        EXPECT_EQ(group->size(), box.sides[axis]);
        EXPECT_EQ(group->rank(), box.along(axis, rank));
        ++axis;
      }
      // Groups of one axis work side by side, in their own time.
      for (uint64_t seed = 0; seed < 20; ++seed) {
        check_collective(*x, seed + 100 * static_cast<uint64_t>(box.colour(0, rank)));
        if (rank % 2 == 0) std::this_thread::yield();
        check_collective(*y, seed);
        check_collective(*z, seed);
      }
      // The sum over each axis in turn is the sum over all.
      float sum = static_cast<float>(rank);
      for (Group* group : {x.get(), y.get(), z.get()})
        ASSERT_TRUE(group->all_reduce(&sum, 1, DType::kF32).ok());
      EXPECT_EQ(sum, static_cast<float>(box.size() * (box.size() - 1) / 2));
      // Nobody leaves the world before the others' splits are done with.
      ASSERT_TRUE(world.barrier().ok());
    });
  }
}

// Every rank's error, where `victim` does `fate` in place of the third sum.
std::map<int, Error> OnNodes::errors_when(int size, int victim, milliseconds timeout,
                                          const std::function<void(Group&)>& fate) {
  std::mutex mutex;
  std::map<int, Error> errors;
  run_ranks(size, timeout, [&](Group& group) {
    for (int i = 0; i < 4; ++i) {
      if (i == 2 && group.rank() == victim) return fate(group);
      std::vector<float> data(100, 1.0F);
      const auto result = group.all_reduce(data.data(), 100, DType::kF32);
      EXPECT_TRUE(result.ok() || i >= 2 || GetParam() > 0);
      // Through sockets a failure may overtake what makes the call before it whole.
      if (!result.ok()) {
        std::lock_guard lock(mutex);
        errors.emplace(group.rank(), result.error());
        // Nothing works any more.
        EXPECT_FALSE(group.barrier().ok());
        EXPECT_FALSE(group.state().ok());
        return;
      }
    }
  });
  return errors;
}

TEST_P(OnNodes, ARankThatLeavesIsNoticedByAll) {
  const int64_t start = steady_clock().now_ns();
  const auto errors = errors_when(4, 2, kPatient, [](Group&) {});
  EXPECT_LT(seconds_since(start), 10.0) << "nobody waits for the timeout";
  ASSERT_EQ(errors.size(), 3U);
  for (const auto& [rank, error] : errors) {
    EXPECT_TRUE(names(error.message, "rank 2", " has left")) << error.message;
    EXPECT_NE(error.message.find("all-reduce 3 of group world"), std::string::npos) << error.message;
  }
}

TEST_P(OnNodes, ARankThatHangsIsNoticedInTime) {
  std::promise<void> end;
  const auto ended = end.get_future().share();
  std::atomic<double> noticed{0};
  std::thread judge;
  const int64_t start = steady_clock().now_ns();
  const auto errors = errors_when(3, 1, kBrief, [&](Group& group) {
    while (group.state().ok()) std::this_thread::sleep_for(milliseconds(1));
    noticed = seconds_since(start);
    // It wakes, and is told too.
    EXPECT_FALSE(group.barrier().ok());
  });
  EXPECT_GT(noticed, 0.1);
  EXPECT_LT(noticed, 5.0);
  ASSERT_EQ(errors.size(), 2U);
  for (const auto& [rank, error] : errors) {
    EXPECT_EQ(error.code, ErrorCode::kDeadlineExceeded);
    EXPECT_TRUE(names(error.message, "held up by rank 1")) << error.message;
  }
}

TEST_P(OnNodes, AnAbortWakesAll) {
  const auto errors = errors_when(4, 3, kPatient, [](Group& group) {
    group.abort({ErrorCode::kDataLoss, "the shard of rank 3 is broken"});
    EXPECT_EQ(group.state().error().code, ErrorCode::kDataLoss);
  });
  ASSERT_EQ(errors.size(), 3U);
  for (const auto& [rank, error] : errors) EXPECT_EQ(error.message, "the shard of rank 3 is broken");
}

TEST_P(OnNodes, RanksThatDisagreeAreTold) {
  struct Case {
    std::function<Result<void>(Group&)> odd;
    const char* message;
  };
  float data[200] = {};
  const std::vector<Case> cases = {
      {[&](Group& group) { return group.all_reduce(data, 99, DType::kF32); },
       "100 against 99|99 against 100"},
      {[&](Group& group) { return group.all_reduce(data, 100, DType::kBF16); },
       "float32 against bfloat16|bf"},
      {[&](Group& group) { return group.barrier(); },
       "all-reduce against barrier|barrier against all-reduce"},
  };
  for (const auto& c : cases) {
    const auto errors = errors_when(3, 1, kPatient, [&](Group& group) { EXPECT_FALSE(c.odd(group).ok()); });
    ASSERT_EQ(errors.size(), 2U);
    const std::string either = c.message;
    for (const auto& [rank, error] : errors) {
      const bool told = error.message.find(either.substr(0, either.find('|'))) != std::string::npos ||
                        error.message.find(either.substr(either.find('|') + 1)) != std::string::npos;
      EXPECT_TRUE(told) << error.message;
      EXPECT_NE(error.message.find("rank 1"), std::string::npos) << error.message;
    }
  }
  run_ranks(2, kPatient, [](Group& group) {
    char buffer[8] = {};
    const std::vector<Outgoing> send(2, {buffer, 3});
    const std::vector<Incoming> receive(2, {buffer + 4, group.rank() == 0 ? 3 : 2});
    const auto result = group.all_to_all(send, receive);
    ASSERT_FALSE(result.ok());
    EXPECT_NE(result.error().message.find("2 bytes expected, 3 sent"), std::string::npos)
        << result.error().message;
  });
}

// Ranks 0 and 1 wait for rank 1's other group, where rank 3 does not come: not rank 1 is to blame.
TEST_P(OnNodes, TheRankThatHoldsUpAllIsNamed) {
  run_ranks(4, kBrief, [](Group& world) {
    auto rows = world.split(world.rank() / 2, "rows").value();
    auto columns = world.split(world.rank() % 2, "columns").value();
    if (world.rank() == 3) {
      while (world.state().ok()) std::this_thread::sleep_for(milliseconds(1));
    } else {
      if (world.rank() == 1) {
        EXPECT_FALSE(columns->barrier().ok());  // with rank 3
      } else if (world.rank() == 0) {
        EXPECT_FALSE(rows->barrier().ok());  // with rank 1
      } else {
        while (world.state().ok()) std::this_thread::sleep_for(milliseconds(1));
      }
      const std::string message = world.state().error().message;
      EXPECT_TRUE(names(message, "held up by rank 3")) << message;
    }
    EXPECT_FALSE(rows->barrier().ok());
  });
}

// Buffers go as soon as a call has returned, whatever it returned: the sanitizers judge.
TEST_P(OnNodes, NobodyTouchesABufferAfterItsCall) {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    run_ranks(3, kPatient, [&](Group& group) {
      std::mt19937_64 random(seed * 3 + static_cast<uint64_t>(group.rank()));
      const int fate = static_cast<int>(random() % 40);
      for (int i = 0; i < 30; ++i) {
        if (i == fate) {
          if (seed % 2 == 0) return;
          group.abort({ErrorCode::kCancelled, "enough"});
        }
        auto data = std::make_unique<std::vector<float>>(20'000, 1.0F);
        const auto result = group.all_reduce(data->data(), 20'000, DType::kF32);
        if (!result.ok()) return;
        ASSERT_EQ(data->back(), 3.0F);
      }
    });
  }
}

}  // namespace
}  // namespace fathom::dist
