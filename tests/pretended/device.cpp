// Two CUDA devices for a torch that was built without CUDA: their memory is the host's, their kernels are the CPU's.
//
// An operator of a CUDA tensor is called once more on CPU tensors that share its memory, after what CUDA refuses has been
// refused: tensors of different devices, and a generator of another device. CUDA takes CPU tensors without dimensions, and
// CPU indices. Not pretended: kernels that CUDA lacks, the limits of cuDNN, streams and races, TF32, little memory.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/InferSize.h>
#include <ATen/TensorUtils.h>
#include <ATen/WrapDimUtils.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <set>

namespace {

using at::Tensor;
using c10::Device, c10::DeviceIndex, c10::DeviceType, c10::IValue, c10::Stream;

constexpr DeviceIndex kDevices = 2;
thread_local DeviceIndex current = 0;

Device device_number(DeviceIndex index) { return {DeviceType::CUDA, index < 0 ? current : index}; }

struct Within {  // a device is the current one meanwhile
  DeviceIndex before = current;
  explicit Within(DeviceIndex index) {
    if (index >= 0) current = index;
    TORCH_CHECK(current < kDevices, "CUDA error: invalid device ordinal");
  }
  ~Within() { current = before; }
};

// --- what autograd asks of a kind of device ----------------------------------------------------------------------------

struct Guard final : c10::impl::DeviceGuardImplInterface {
  DeviceType type() const override { return DeviceType::CUDA; }
  Device getDevice() const override { return device_number(current); }
  void uncheckedSetDevice(Device d) const noexcept override { current = d.index() < 0 ? current : d.index(); }
  void setDevice(Device d) const override { uncheckedSetDevice(d); }
  Device exchangeDevice(Device d) const override {
    Device before = getDevice();
    setDevice(d);
    return before;
  }
  DeviceIndex deviceCount() const noexcept override { return kDevices; }
  Stream getStream(Device d) const override { return Stream(Stream::DEFAULT, device_number(d.index())); }
  Stream getDefaultStream(Device d) const override { return getStream(d); }
  Stream getNewStream(Device d, int) const override { return getStream(d); }
  Stream getStreamFromGlobalPool(Device d, bool) const override { return getStream(d); }
  Stream exchangeStream(Stream s) const override { return getStream(s.device()); }
  void record(void**, const Stream&, const DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const DeviceIndex) const noexcept override {}
  bool queryStream(const Stream&) const override { return true; }
  void synchronizeStream(const Stream&) const override {}
  void synchronizeDevice(const DeviceIndex) const override {}
  void recordDataPtrOnStream(const c10::DataPtr&, const Stream&) const override {}
};
c10::impl::DeviceGuardImplRegistrar guard(DeviceType::CUDA, new Guard());

// --- memory --------------------------------------------------------------------------------------------------------------

std::atomic<int64_t> held{0}, most{0};

struct Block {
  void* data;
  int64_t size;
};

void release(void* context) {
  auto* block = static_cast<Block*>(context);
  held -= block->size;
  std::free(block->data);
  delete block;
}

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t n) override {
    void* data = nullptr;
    if (n && posix_memalign(&data, 64, n)) throw std::bad_alloc();
    most = std::max(most.load(), held += n);
    return {data, new Block{data, static_cast<int64_t>(n)}, &release, device_number(current)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t n) const override { std::memcpy(to, from, n); }
};
Memory memory;
const bool registered = [] {
  c10::SetAllocator(DeviceType::CUDA, &memory, 255);
  return true;
}();
const c10::DispatchKeySet kKeys(c10::DispatchKey::CUDA);

// --- random numbers ------------------------------------------------------------------------------------------------------

struct Random final : c10::GeneratorImpl {
  at::Generator host;
  explicit Random(DeviceIndex i, at::Generator g = at::detail::createCPUGenerator())
      : c10::GeneratorImpl(device_number(i), kKeys), host(std::move(g)) {}
  void set_current_seed(uint64_t s) override { host.set_current_seed(s); }
  void set_offset(uint64_t) override {}
  uint64_t get_offset() const override { return 0; }
  uint64_t current_seed() const override { return host.current_seed(); }
  uint64_t seed() override { return host.seed(); }
  void set_state(const c10::TensorImpl& s) override { host.unsafeGetGeneratorImpl()->set_state(s); }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override { return host.unsafeGetGeneratorImpl()->get_state(); }
  Random* clone_impl() const override { return new Random(device().index(), host.clone()); }
};

}  // namespace

namespace at {  // where the registry looks for it

struct PretendedHooks final : CUDAHooksInterface {
  explicit PretendedHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return kDevices; }
  DeviceIndex getCurrentDevice() const override { return current; }
  void setCurrentDevice(DeviceIndex i) const override { current = i; }
  DeviceIndex exchangeDevice(DeviceIndex i) const override { return std::exchange(current, i); }
  DeviceIndex maybeExchangeDevice(DeviceIndex i) const override { return std::exchange(current, i); }
  Device getDeviceFromPtr(void*) const override { return device_number(current); }
  Generator getNewGenerator(DeviceIndex i) const override { return make_generator<Random>(device_number(i).index()); }
  const Generator& getDefaultGenerator(DeviceIndex i) const override {
    static const std::array<Generator, kDevices> of{getNewGenerator(0), getNewGenerator(1)};
    return of[device_number(i).index()];
  }
};
C10_REGISTER_CLASS(CUDAHooksRegistry, CUDAHooks, PretendedHooks)

}  // namespace at

namespace {

// --- one memory, two tensors ---------------------------------------------------------------------------------------------

Tensor on_host(const Tensor& t) {  // the same memory, kept alive
  if (!t.defined() || !t.is_cuda()) return t;
  void* data = t.numel() ? t.mutable_data_ptr() : nullptr;
  auto options = t.options().device(DeviceType::CPU).requires_grad(false);
  return at::for_blob(data, t.sizes()).strides(t.strides()).deleter([t](void*) {}).options(options).make_tensor();
}

Tensor on_device(const Tensor& t) {  // a copy on the current device, laid out as it is
  if (!t.defined() || !t.device().is_cpu()) return t;
  auto made = at::detail::empty_strided_generic(t.sizes(), t.strides(), &memory, kKeys, t.scalar_type());
  const size_t n = made.storage().nbytes();
  if (n) std::memcpy(made.storage().mutable_data(), t.const_data_ptr(), n);
  return made;
}

template <typename F>
IValue mapped(const IValue& v, F f) {
  if (v.isTensor()) return f(v.toTensor());
  if (v.isTensorList()) {
    c10::List<Tensor> result;
    for (const Tensor& t : v.toTensorList()) result.push_back(f(t));
    return result;
  }
  if (v.isOptionalTensorList()) {
    c10::List<std::optional<Tensor>> result;
    for (const std::optional<Tensor>& t : v.toOptionalTensorList()) result.push_back(t ? std::optional<Tensor>(f(*t)) : t);
    return result;
  }
  return v;
}

IValue host_of(const IValue& v) {
  if (v.isDevice()) return Device(DeviceType::CPU);
  if (v.isGenerator())
    if (auto* mine = dynamic_cast<Random*>(v.toGenerator().unsafeGetGeneratorImpl())) return mine->host;
  return mapped(v, on_host);
}

// --- any operator --------------------------------------------------------------------------------------------------------

const std::set<std::string> kAnyDevice = {  // tensors of several devices may meet
    "aten::copy_", "aten::_to_copy", "aten::_copy_from", "aten::set_", "aten::_local_scalar_dense", "aten::repeat_interleave",
    "aten::index", "aten::_unsafe_index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index_put"};
const std::set<std::string> kEveryTensor = {  // even one without dimensions must be there
    "aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::mv", "aten::dot", "aten::gather", "aten::scatter",
    "aten::scatter_", "aten::index_select", "aten::searchsorted", "aten::cat"};
const std::set<std::string> kIndexing = {"aten::index", "aten::index_put_", "aten::_index_put_impl_"};

Device common_device(const std::string& name, const std::vector<IValue>& args) {
  std::vector<Tensor> given;
  for (const IValue& a : args)
    mapped(a, [&](const Tensor& t) {
      if (t.defined()) given.push_back(t);
      return t;
    });
  std::optional<Device> device;
  for (const Tensor& t : given)
    if (t.is_cuda() && !device) device = t.device();
  for (const Tensor& t : given) {
    const bool elsewhere = device && t.device() != *device && (t.is_cuda() || t.dim() || kEveryTensor.count(name));
    TORCH_CHECK(!elsewhere || kAnyDevice.count(name), "Expected all tensors to be on the same device, but found at least two devices, ",
                *device, " and ", t.device(), "! (", name, ")");
  }
  TORCH_CHECK(!kIndexing.count(name) || args[0].toTensor().is_cuda(),
              "indices should be either on cpu or on the same device as the indexed tensor (cpu) (", name, ")");
  for (const IValue& a : args) {
    if (a.isGenerator())
      TORCH_CHECK(a.toGenerator().device().is_cuda(), "Expected a 'cuda' device type for generator but found 'cpu' (", name, ")");
    if (a.isDevice() && !device) device = device_number(a.toDevice().index());
  }
  return device.value_or(device_number(current));
}

void on_the_host(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const auto args = torch::jit::pop(*stack, schema.arguments().size());
  const Within within(common_device(schema.name(), args).index());
  torch::jit::Stack own;
  std::vector<size_t> written;
  for (size_t i = 0; i < args.size(); ++i) {
    const auto* alias = schema.arguments()[i].alias_info();
    if (alias && alias->isWrite()) written.push_back(i);
    // an output without elements has no memory to share: the kernel may give it a shape
    const bool fresh = alias && alias->isWrite() && args[i].isTensor() && args[i].toTensor().is_cuda() && !args[i].toTensor().numel();
    own.push_back(fresh ? at::empty(args[i].toTensor().sizes(), args[i].toTensor().options().device(DeviceType::CPU)) : host_of(args[i]));
  }
  const auto hosts = own;
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), &own);
  for (size_t i : written) {
    if (!args[i].isTensor() || !args[i].toTensor().is_cuda()) continue;
    const Tensor &mine = args[i].toTensor(), &its = hosts[i].toTensor();
    if (mine.sizes() == its.sizes() && mine.strides() == its.strides()) continue;
    mine.resize_(its.sizes());
    on_host(mine).copy_(its);
  }
  for (size_t r = 0; r < own.size(); ++r) {
    const auto* alias = schema.returns()[r].alias_info();
    TORCH_CHECK(!alias || alias->isWrite(), schema.name(), ": a view without a kernel of its own");
    if (!alias) {
      stack->push_back(mapped(own[r], on_device));
      continue;
    }
    const auto same = [&](size_t i) { return schema.arguments()[i].alias_info()->beforeSets() == alias->beforeSets(); };
    const auto found = std::find_if(written.begin(), written.end(), same);
    TORCH_CHECK(found != written.end(), schema.name(), ": no argument for a result that is written");
    stack->push_back(args[*found]);
  }
}

// --- memory and views ----------------------------------------------------------------------------------------------------

using Kind = std::optional<at::ScalarType>;
using Layout = std::optional<at::Layout>;
using Where = std::optional<Device>;
using Flag = std::optional<bool>;
using Sizes = c10::IntArrayRef;

Tensor empty(Sizes size, Kind kind, Layout, Where where, Flag, std::optional<at::MemoryFormat> format) {
  const Within within(where ? where->index() : -1);
  return at::detail::empty_generic(size, &memory, kKeys, at::dtype_or_default(kind), format);
}

Tensor empty_strided(Sizes size, Sizes stride, Kind kind, Layout, Where where, Flag) {
  const Within within(where ? where->index() : -1);
  return at::detail::empty_strided_generic(size, stride, &memory, kKeys, at::dtype_or_default(kind));
}

Tensor& copy_(Tensor& self, const Tensor& from, bool) {
  on_host(self).copy_(on_host(from));
  return self;
}

const Tensor& resize_(const Tensor& self, Sizes size, std::optional<at::MemoryFormat>) {
  const Within within(self.device().index());
  auto* impl = self.unsafeGetTensorImpl();
  if (impl->sizes() == size) return self;
  const int64_t n = c10::multiply_integers(size) + impl->storage_offset();
  if (const size_t needed = n * self.element_size(); needed > self.storage().nbytes()) {
    auto data = memory.allocate(needed);
    if (self.storage().nbytes()) std::memcpy(data.get(), self.storage().data(), self.storage().nbytes());
    self.storage().unsafeGetStorageImpl()->set_data_ptr_noswap(std::move(data));
    self.storage().unsafeGetStorageImpl()->set_nbytes(needed);
  }
  impl->set_sizes_contiguous(size);
  return self;
}

Tensor strided(const Tensor& self, Sizes size, Sizes stride, std::optional<int64_t> offset) {
  auto made = at::detail::make_tensor<c10::TensorImpl>(c10::TensorImpl::VIEW, c10::Storage(self.storage()), self.key_set(), self.dtype());
  made.unsafeGetTensorImpl()->set_storage_offset(offset.value_or(self.storage_offset()));
  made.unsafeGetTensorImpl()->set_sizes_and_strides(size, stride);
  return made;
}

Tensor reshape_alias(const Tensor& self, Sizes size, Sizes stride) { return strided(self, size, stride, std::nullopt); }

Tensor view(const Tensor& self, Sizes size) {
  const at::DimVector sizes = at::infer_size_dv(size, self.numel());
  const auto stride = at::detail::computeStride(self.sizes(), self.strides(), sizes);
  TORCH_CHECK(stride, "view size is not compatible with input tensor's size and stride; use .reshape(...) instead");
  return strided(self, sizes, *stride, std::nullopt);
}

Tensor unfold(const Tensor& self, int64_t d, int64_t size, int64_t step) {
  d = at::maybe_wrap_dim(d, self.dim());
  auto sizes = self.sizes().vec(), strides = self.strides().vec();
  TORCH_CHECK(size <= sizes[d], "maximum size for tensor at dimension ", d, " is ", sizes[d], " but size is ", size);
  sizes.push_back(size);
  strides.push_back(strides[d]);
  sizes[d] = (sizes[d] - size) / step + 1;
  strides[d] *= step;
  return strided(self, sizes, strides, std::nullopt);
}

Tensor& set_part(Tensor& self, at::Storage source, int64_t offset, Sizes size, Sizes stride) {
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(std::move(source));
  impl->set_storage_offset(offset);
  if (stride.data()) impl->set_sizes_and_strides(size, stride);
  else impl->set_sizes_contiguous(size);
  return self;
}

Tensor& set_whole(Tensor& self, at::Storage source) {
  const int64_t n = source.nbytes() / self.element_size();
  return set_part(self, std::move(source), 0, {n}, {});
}

Tensor& set_tensor(Tensor& self, const Tensor& source) {
  return set_part(self, source.storage(), source.storage_offset(), source.sizes(), source.strides());
}

}  // namespace

TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&on_the_host>()); }

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("copy_", copy_);
  m.impl("resize_", resize_);
  m.impl("as_strided", strided);
  m.impl("_reshape_alias", reshape_alias);
  m.impl("view", view);
  m.impl("unfold", unfold);
  m.impl("set_.source_Storage_storage_offset", set_part);
  m.impl("set_.source_Storage", set_whole);
  m.impl("set_.source_Tensor", set_tensor);
  // these ask which libraries CUDA has before they ask for a kernel
  for (const char* name : {"convolution", "convolution_backward", "_fused_sdp_choice"})
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&on_the_host>());
}

extern "C" {
int64_t pretended_most() { return most; }
int64_t pretended_held() { return held; }
void pretended_forget() { most = held.load(); }
void pretended_choose(int index) { current = static_cast<DeviceIndex>(index); }
int pretended_chosen() { return current; }
}
