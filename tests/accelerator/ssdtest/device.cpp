// A device of torch's own registration (PrivateUse1) whose memory is the host's, for the tests: what an accelerator's
// vendor brings to torch, in one file and linked with libtorch alone.
//
// Almost every op goes the same way: the tensors of the device are taken as tensors of the CPU at the same addresses,
// the CPU's kernel runs, and what it made is given back as tensors of the device. `ssdtest::switch` says what the device
// refuses, as devices that lack it do, and which op gives a wrong result.

#include <ATen/EmptyTensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/ops/_local_scalar_dense.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <set>
#include <string>
#include <vector>

namespace {

using at::IntArrayRef;
using at::Tensor;
using c10::Device;
using c10::DeviceIndex;
using c10::IValue;
using c10::Stream;

constexpr auto KIND = c10::DeviceType::PrivateUse1;
constexpr DeviceIndex DEVICES = 2;

std::set<std::string> refused;
std::string wrong;
thread_local DeviceIndex current = 0;

void check_supported(c10::ScalarType type, std::optional<c10::MemoryFormat> format = std::nullopt) {
  bool half = type == c10::kHalf || type == c10::kBFloat16;
  TORCH_CHECK(!(type == c10::kDouble && refused.count("float64")), "ssdtest: no float64 on this device");
  TORCH_CHECK(!(half && refused.count("half")), "ssdtest: no half precision on this device");
  TORCH_CHECK(
      !(format == c10::MemoryFormat::ChannelsLast && refused.count("channels_last")),
      "ssdtest: no channels-last layout on this device");
}

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    c10::DataPtr data = c10::GetCPUAllocator()->allocate(bytes);
    data.unsafe_set_device(Device(KIND, current));
    return data;
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return c10::GetCPUAllocator()->raw_deleter();
  }
  void copy_data(void* target, const void* source, size_t bytes) const override {
    default_copy_data(target, source, bytes);
  }
};

Memory memory;
REGISTER_ALLOCATOR(KIND, &memory)

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override {
    return KIND;
  }
  Device exchangeDevice(Device device) const override {
    Device before = getDevice();
    setDevice(device);
    return before;
  }
  Device getDevice() const override {
    return Device(KIND, current);
  }
  void setDevice(Device device) const override {
    TORCH_CHECK(device.index() < DEVICES, "ssdtest: there are ", int(DEVICES), " devices, and no ", device);
    current = device.has_index() ? device.index() : current;
  }
  void uncheckedSetDevice(Device device) const noexcept override {
    current = device.has_index() ? device.index() : current;
  }
  Stream getStream(Device device) const noexcept override {
    return Stream(Stream::DEFAULT, device);
  }
  Stream exchangeStream(Stream stream) const noexcept override {
    return stream;
  }
  DeviceIndex deviceCount() const noexcept override {
    return DEVICES;
  }
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

struct Hooks final : at::PrivateUse1HooksInterface {
  bool hasPrimaryContext(DeviceIndex) const override {
    return true;
  }
  c10::Allocator* getPinnedMemoryAllocator() const override {
    TORCH_CHECK(!refused.count("pinned"), "ssdtest: no page-locked memory on this machine");
    return c10::GetCPUAllocator();
  }
};

// Memory that another tensor holds, as a tensor of `device`.
Tensor aliased(const Tensor& tensor, Device device, c10::Allocator* allocator) {
  auto options = tensor.options().device(device).requires_grad(false);
  return at::for_blob(tensor.data_ptr(), tensor.sizes())
      .strides(tensor.strides())
      .deleter([tensor](void*) {})
      .target_device(device)
      .options(options)
      .allocator(allocator)
      .resizeable_storage()
      .make_tensor();
}

Tensor on_host(const Tensor& tensor) {
  bool ours = tensor.defined() && tensor.device().type() == KIND;
  return ours ? aliased(tensor, Device(c10::kCPU), c10::GetCPUAllocator()) : tensor;
}

Tensor on_device(const Tensor& tensor, Device device) {
  if (!tensor.defined()) return tensor;
  check_supported(tensor.scalar_type());
  return aliased(tensor, device, &memory);
}

// Runs an op's kernel for the CPU on the device's memory.
void by_host(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const size_t count = schema.arguments().size(), begin = stack->size() - count;
  Device device(KIND, current);
  std::vector<std::pair<Tensor, Tensor>> given;  // as it came, and as the host sees it
  auto move = [&](const Tensor& tensor) {
    if (tensor.defined() && tensor.device().type() == KIND) device = tensor.device();
    given.emplace_back(tensor, on_host(tensor));
    return given.back().second;
  };
  for (size_t i = begin; i < stack->size(); ++i) {
    IValue& value = (*stack)[i];
    if (value.isTensor()) {
      value = move(value.toTensor());
    } else if (value.isTensorList()) {
      std::vector<Tensor> moved;
      for (const Tensor& tensor : value.toTensorVector()) moved.push_back(move(tensor));
      value = moved;
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<Tensor>> moved;
      for (const auto& tensor : value.toOptionalTensorVector())
        moved.push_back(tensor ? std::optional<Tensor>(move(*tensor)) : std::nullopt);
      value = moved;
    } else if (value.isDevice()) {
      device = value.toDevice();
      value = Device(c10::kCPU);
    }
  }
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);

  auto back = [&](const Tensor& made) {
    for (auto& [before, seen] : given) {
      if (!made.defined() || !seen.is_same(made) || before.is_same(made)) continue;
      if (before.sizes() != made.sizes()) before.resize_(made.sizes());
      if (before.data_ptr() != made.data_ptr()) on_host(before).copy_(made);
      return before;
    }
    return on_device(made, device);
  };
  // In torch 2.4 argsort is an op of its own, and no call of sort.
  const bool spoiled = !wrong.empty() && (schema.name() == "aten::" + wrong || schema.name() == "aten::arg" + wrong);
  for (size_t i = stack->size() - schema.returns().size(); i < stack->size(); ++i) {
    IValue& value = (*stack)[i];
    if (value.isTensor()) {
      Tensor made = value.toTensor();
      if (spoiled && made.dim() > 0) made.copy_(made.roll({1}, {made.dim() - 1}));
      value = back(made);
    } else if (value.isTensorList()) {
      std::vector<Tensor> moved;
      for (const Tensor& tensor : value.toTensorVector()) moved.push_back(back(tensor));
      value = moved;
    }
  }
}

Tensor empty(
    IntArrayRef size, std::optional<c10::ScalarType> type, std::optional<c10::Layout>, std::optional<Device> device,
    std::optional<bool>, std::optional<c10::MemoryFormat> format) {
  check_supported(c10::dtype_or_default(type), format);
  c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_generic(
      size, &memory, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), c10::dtype_or_default(type), format);
}

Tensor empty_strided(
    IntArrayRef size, IntArrayRef stride, std::optional<c10::ScalarType> type, std::optional<c10::Layout>,
    std::optional<Device> device, std::optional<bool>) {
  check_supported(c10::dtype_or_default(type));
  c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_strided_generic(
      size, stride, &memory, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), c10::dtype_or_default(type));
}

Tensor copy_from(const Tensor& source, const Tensor& target, bool non_blocking) {
  TORCH_CHECK(!(non_blocking && refused.count("non_blocking")), "ssdtest: a copy cannot run beside other work");
  on_host(target).copy_(on_host(source));
  return target;
}

Tensor copy_from_and_resize(const Tensor& source, const Tensor& target) {
  target.resize_(source.sizes());
  return copy_from(source, target, false);
}

// torch's own, but with the new memory on the tensor's device and not on the current one.
const Tensor& resize(const Tensor& tensor, IntArrayRef size, std::optional<c10::MemoryFormat> format) {
  c10::DeviceGuard guard(tensor.device());
  return at::native::resize_(tensor, size, format);
}

at::Scalar local_scalar(const Tensor& tensor) {
  return at::_local_scalar_dense(on_host(tensor));
}

Tensor convolution(
    const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias, IntArrayRef stride,
    IntArrayRef padding, IntArrayRef dilation, bool transposed, IntArrayRef output_padding, int64_t groups) {
  Tensor offset = bias && bias->defined() ? on_host(*bias) : Tensor();
  Tensor made = at::convolution(
      on_host(input), on_host(weight), offset, stride, padding, dilation, transposed, output_padding, groups);
  return on_device(made, input.device());
}

std::tuple<Tensor, Tensor, Tensor> convolution_backward(
    const Tensor& gradient, const Tensor& input, const Tensor& weight, IntArrayRef stride, IntArrayRef padding,
    IntArrayRef dilation, bool transposed, IntArrayRef output_padding, int64_t groups, std::array<bool, 3> mask) {
  std::vector<int64_t> bias{gradient.size(1)};
  auto [first, second, third] = at::convolution_backward(
      on_host(gradient), on_host(input), on_host(weight), bias, stride, padding, dilation, transposed, output_padding,
      groups, mask);
  Device device = input.device();
  return {on_device(first, device), on_device(second, device), on_device(third, device)};
}

void set_switches(const std::string& names, const std::string& op) {
  refused.clear();
  for (size_t begin = 0; begin < names.size();) {
    size_t end = std::min(names.find(',', begin), names.size());
    refused.insert(names.substr(begin, end - begin));
    begin = end + 1;
  }
  wrong = op;
}

TORCH_LIBRARY(ssdtest, m) {
  m.def("switch(str refused, str wrong) -> ()", [](std::string names, std::string op) { set_switches(names, op); });
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&by_host>());
}

// Mixed precision: what has no rule of its own runs in the types that it is given.
TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFallthrough());
}

TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
  KERNEL_PRIVATEUSEONE(conv2d, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(matmul, lower_precision_fp)
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("_local_scalar_dense", &local_scalar);
  m.impl("convolution_overrideable", &convolution);
  m.impl("convolution_backward_overrideable", &convolution_backward);
  m.impl("as_strided", &at::native::as_strided_tensorimpl);
  m.impl("view", &at::native::view);
  m.impl("_reshape_alias", &at::native::_reshape_alias);
  m.impl("unfold", &at::native::unfold);
  m.impl("resize_", &resize);
  m.impl("set_.source_Storage_storage_offset", &at::native::set_storage_cpu_);
}

const int registered = (at::RegisterPrivateUse1HooksInterface(new Hooks()), 0);

}  // namespace
