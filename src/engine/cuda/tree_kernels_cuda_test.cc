// Trees on the GPU against the host's (engine/draft_tree.h), from the same candidates.
#include "engine/cuda/tree_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "device/cuda/testing.h"
#include "engine/draft_tree.h"

namespace fathom::engine::cuda {
namespace {

using device::cuda::testing::DeviceArray;
using device::cuda::testing::test_stream;

constexpr int64_t kPage = 4, kTable = 40;
constexpr int32_t kDraftState = 1000;

template <class T>
std::vector<T> download(const T* from, int64_t count) {
  std::vector<T> values(static_cast<size_t>(count));
  FATHOM_CHECK(
      cudaMemcpy(values.data(), from, values.size() * sizeof(T), cudaMemcpyDeviceToHost) == cudaSuccess,
      "download");
  return values;
}
template <class T>
void upload(T* to, const std::vector<T>& values) {
  FATHOM_CHECK(
      cudaMemcpy(to, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice) == cudaSuccess,
      "upload");
}

struct Row {
  int32_t slot, start, first, drafts;
};

// What the host drafts: engine/draft_layer.cc, with candidates at random.
struct HostRow {
  DraftTree tree;
  struct Beam {
    int32_t node = DraftTree::kRoot;
    std::vector<int64_t> places{};
  };
  std::vector<Beam> beams{{}};
  int32_t entries = 0;
};

class Trees {
 public:
  Trees(const TreeShape& shape, std::vector<Row> rows, uint32_t seed)
      : shape_(shape), rows_(std::move(rows)), host_(rows_.size()), random_(seed) {
    for (int64_t i = 0; i < 8 * kTable; ++i) table_.push_back(static_cast<int32_t>((i * 7 + 3) % 320));
    device_table_ = std::make_unique<DeviceArray<int32_t>>(table_);
    std::vector<int32_t> columns[4];
    for (const Row& row : rows_) {
      columns[0].push_back(row.slot);
      columns[1].push_back(row.start);
      columns[2].push_back(row.first);
      columns[3].push_back(row.drafts);
      tokens_ = std::max(tokens_, row.first + shape.width());
    }
    for (int i = 0; i < 4; ++i) columns_[i] = std::make_unique<DeviceArray<int32_t>>(columns[i]);
    device_rows_ = {static_cast<int64_t>(rows_.size()), columns_[0]->data(), columns_[1]->data(),
                    columns_[2]->data(), columns_[3]->data()};
    memory_ = TreeMemory::allocate(shape, static_cast<int64_t>(rows_.size()), tokens_, arena_).value();
    tables_.block_tables = device_table_->data();
    tables_.stride = kTable;
  }

  void run() {
    for (int32_t pass = 0; pass < shape_.passes; ++pass) {
      draft(pass);
      grow_trees(*test_stream(), memory_, device_rows_, pass, kDraftState, tables_, kPage);
      ASSERT_TRUE(test_stream()->synchronize().ok()) << test_stream()->status().error().message;
      check_beams(pass);
    }
    const int64_t places = device_rows_.rows * shape_.width();
    ids_ = std::make_unique<DeviceArray<int32_t>>(std::vector<int32_t>(static_cast<size_t>(tokens_), -7));
    positions_ =
        std::make_unique<DeviceArray<int32_t>>(std::vector<int32_t>(static_cast<size_t>(tokens_), -7));
    logit_rows_ =
        std::make_unique<DeviceArray<int32_t>>(std::vector<int32_t>(static_cast<size_t>(places), -7));
    pick_trees(*test_stream(), memory_, device_rows_, {ids_->data(), positions_->data(), logit_rows_->data()},
               tables_, kPage);
    ASSERT_TRUE(test_stream()->synchronize().ok()) << test_stream()->status().error().message;
    check_picked();
  }

 private:
  int64_t place(const Row& row, int32_t position) const {
    const int64_t page = table_[static_cast<size_t>(row.slot * kTable + position / kPage)];
    return page * kPage + position % kPage;
  }

  // Candidates of the pass for both.
  void draft(int32_t pass) {
    const auto branches = static_cast<size_t>(shape_.branches);
    const size_t each = pass == 0 ? 1 : branches;
    std::vector<int32_t> chosen(rows_.size() * each, -1), top(chosen.size() * branches, 5);
    std::vector<float> logprobs(top.size(), 0.0F);
    for (size_t s = 0; s < rows_.size(); ++s) {
      HostRow& host = host_[s];
      if (rows_[s].drafts == 0) host.beams.clear();
      const std::vector<HostRow::Beam> before = std::exchange(host.beams, {});
      const int32_t begin = host.tree.size();
      std::vector<size_t> beam_of;
      for (size_t b = 0; b < before.size(); ++b) {
        const size_t at = s * each + b;
        std::vector<int32_t> tokens(branches);
        // Few different numbers, so that there are equals.
        for (size_t i = 0; i < branches; ++i) tokens[i] = static_cast<int32_t>(i * 10 + random_() % 10);
        std::vector<float> own(branches);
        for (float& logprob : own) logprob = -0.5F * static_cast<float>(random_() % 6);
        std::ranges::sort(own, std::greater<>());
        // The choice is one of the likeliest, or none of them.
        chosen[at] = random_() % 3 == 0 ? 999 : tokens[random_() % branches];
        std::copy(tokens.begin(), tokens.end(), top.begin() + static_cast<ptrdiff_t>(at * branches));
        std::copy(own.begin(), own.end(), logprobs.begin() + static_cast<ptrdiff_t>(at * branches));
        host.tree.add(before[b].node, chosen[at], own[0]);
        beam_of.push_back(b);
        for (size_t i = 0, count = 1; i < branches && count < branches; ++i) {
          if (tokens[i] == chosen[at]) continue;
          host.tree.add(before[b].node, tokens[i], own[i]);
          beam_of.push_back(b);
          ++count;
        }
      }
      if (pass + 1 >= std::min(shape_.passes, rows_[s].drafts)) continue;
      for (const int32_t node : host.tree.best(begin, shape_.branches)) {
        if (host.entries > rows_[s].drafts) break;
        HostRow::Beam& beam = host.beams.emplace_back();
        beam.node = node;
        beam.places = before[beam_of[static_cast<size_t>(node - begin)]].places;
        beam.places.push_back(place(rows_[s], rows_[s].start + host.entries++));
      }
    }
    upload(memory_.chosen, chosen);
    upload(memory_.top_tokens, top);
    upload(memory_.top_logprobs, logprobs);
  }

  void check_beams(int32_t pass) {
    if (pass + 1 >= shape_.passes) return;
    const TreeMemory::Beams& beams = memory_.beams[(pass + 1) % 2];
    const int64_t count = device_rows_.rows * shape_.branches, stride = memory_.tail_stride();
    const auto ids = download(beams.ids, count), positions = download(beams.positions, count);
    const auto starts = download(beams.tail_starts, count), slots = download(beams.draft_slots, count);
    const auto places = download(beams.places, count), tails = download(beams.tails, count * stride);
    for (size_t s = 0; s < rows_.size(); ++s) {
      for (size_t b = 0; b < static_cast<size_t>(shape_.branches); ++b) {
        const size_t at = s * static_cast<size_t>(shape_.branches) + b;
        const auto& wanted = host_[s].beams;
        if (b >= wanted.size()) {
          EXPECT_EQ(positions[at], -1) << "pass " << pass << " row " << s << " beam " << b;
          EXPECT_EQ(slots[at], -1);
          continue;
        }
        EXPECT_EQ(ids[at], host_[s].tree.token(wanted[b].node))
            << "pass " << pass << " row " << s << " beam " << b;
        EXPECT_EQ(positions[at], rows_[s].start + pass);
        EXPECT_EQ(starts[at], rows_[s].start);
        EXPECT_EQ(slots[at], rows_[s].slot);
        EXPECT_EQ(places[at], wanted[b].places.back());
        for (size_t d = 0; d < wanted[b].places.size(); ++d)
          EXPECT_EQ(tails[at * static_cast<size_t>(stride) + d], wanted[b].places[d]);
      }
    }
  }

  void check_picked() {
    const auto width = static_cast<size_t>(shape_.width());
    const auto ids = ids_->get(), positions = positions_->get(), logit_rows = logit_rows_->get();
    const auto parents = download(memory_.place_parents, device_rows_.rows * shape_.width());
    const auto tokens = download(memory_.place_tokens, device_rows_.rows * shape_.width());
    const auto tails = download(memory_.tails, tokens_ * memory_.tail_stride());
    for (size_t s = 0; s < rows_.size(); ++s) {
      const Row& row = rows_[s];
      const auto tree = host_[s].tree.tree(std::min(row.drafts, shape_.guesses));
      EXPECT_EQ(tree.size(), shape_.guesses_of(row.drafts)) << "row " << s;
      for (size_t i = 1; i < width; ++i) {
        const auto at = static_cast<size_t>(row.first) + i;
        const auto node = static_cast<int32_t>(i) - 1;
        if (node >= tree.size()) {
          EXPECT_EQ(parents[s * width + i], -1) << "row " << s << " place " << i;
          if (row.drafts > 0) {
            EXPECT_EQ(positions[at], -1);
          }
          EXPECT_EQ(logit_rows[s * width + i], -7);
          continue;
        }
        EXPECT_EQ(tokens[s * width + i], tree.tokens[i - 1]) << "row " << s << " place " << i;
        EXPECT_EQ(parents[s * width + i], tree.parents[i - 1] + 1) << "row " << s << " place " << i;
        EXPECT_EQ(ids[at], tree.tokens[i - 1]);
        EXPECT_EQ(positions[at], row.start + tree.depth(node));
        EXPECT_EQ(logit_rows[s * width + i], static_cast<int32_t>(at));
        int32_t above = node;
        for (int32_t d = tree.depth(node); d >= 0; --d) {
          EXPECT_EQ(tails[at * static_cast<size_t>(memory_.tail_stride()) + static_cast<size_t>(d)],
                    place(row, row.start + 1 + above));
          if (above >= 0) above = tree.parents[static_cast<size_t>(above)];
        }
      }
    }
  }

  TreeShape shape_;
  std::vector<Row> rows_;
  std::vector<HostRow> host_;
  std::mt19937 random_;
  int32_t tokens_ = 0;
  std::vector<int32_t> table_;
  device::cuda::DeviceArena arena_{size_t{4} << 20};
  std::unique_ptr<DeviceArray<int32_t>> device_table_, columns_[4], ids_, positions_, logit_rows_;
  TreeRows device_rows_;
  TreeMemory memory_;
  SlotTables tables_;
};

TEST(TreeKernels, GrowAndPickAsTheHostDoes) {
  if (test_stream() == nullptr) GTEST_SKIP() << "no GPU";
  uint32_t seed = 0;
  for (const TreeShape& shape : {TreeShape{3, 4, 15}, TreeShape{1, 3, 3}, TreeShape{5, 2, 5},
                                 TreeShape{4, 8, 39}, TreeShape{2, 16, 63}, TreeShape{6, 3, 2}}) {
    const int32_t most = std::max(shape.guesses, shape.branches * (shape.passes - 1));
    for (int round = 0; round < 5; ++round) {
      std::vector<Row> rows;
      for (const int32_t drafts : {most, 0, 1, 2, most / 2, most}) {
        const auto s = static_cast<int32_t>(rows.size());
        rows.push_back({s, 5 + 3 * s, 2 + s * (shape.width() + 1), drafts});
      }
      Trees(shape, rows, ++seed).run();
    }
  }
}

}  // namespace
}  // namespace fathom::engine::cuda
