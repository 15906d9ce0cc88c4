#include "ops/embedding/embedding.h"

#include "ops/implementation.h"

namespace fathom::ops {
namespace {

constexpr Implementation<EmbeddingFunction> kEmbedding[] = {
    {"reference", device::Isa::kReference, embedding_reference},
};

}  // namespace

EmbeddingFunction choose_embedding(const device::Target& target) {
  return choose<EmbeddingFunction>(kEmbedding, target).run;
}

}  // namespace fathom::ops
