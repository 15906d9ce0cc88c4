#include "ops/kv_write/kv_write.h"

#include "ops/implementation.h"

namespace fathom::ops {
namespace {

constexpr Implementation<LatentWriteFunction> kLatentWrite[] = {
    {"reference", device::Isa::kReference, latent_write_reference},
};
constexpr Implementation<PlainWriteFunction> kPlainWrite[] = {
    {"reference", device::Isa::kReference, plain_write_reference},
};

}  // namespace

LatentWriteFunction choose_latent_write(const device::Target& target) {
  return choose<LatentWriteFunction>(kLatentWrite, target).run;
}

PlainWriteFunction choose_plain_write(const device::Target& target) {
  return choose<PlainWriteFunction>(kPlainWrite, target).run;
}

}  // namespace fathom::ops
