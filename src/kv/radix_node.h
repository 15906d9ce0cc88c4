// A node of the radix tree; seen by radix_tree.cc and its check only.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "kv/radix_tree.h"

namespace fathom::kv {

struct RadixTree::Node {
  Node* parent = nullptr;       // null: a root
  std::string cache_namespace;  // of a root
  std::vector<int32_t> tokens;  // page_size for each page
  std::vector<int32_t> pages;
  std::vector<uint64_t> chains;  // of each page: a hash of all from the namespace up to the page's end
  // By the hash of the child's first page. A multimap, since two pages may have the same hash.
  std::unordered_multimap<uint64_t, Node*> children;
  uint64_t last_use = 0;
  int32_t locks = 0;  // locks at this node or below
  size_t index = 0;   // in nodes_
  bool in_order = false;
};

}  // namespace fathom::kv
