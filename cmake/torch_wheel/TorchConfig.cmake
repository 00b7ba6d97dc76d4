# libtorch as the Python package `torch` carries it. Its own TorchConfig.cmake asks for the toolkit
# of the graphics card that the package was built for; what runs on CPUs needs none.
#
#   cmake -DTorch_DIR=cmake/torch_wheel -DNARROW_TORCH_WHEEL=.../site-packages/torch
foreach(part include/torch/csrc/api/include lib/libtorch_cpu.so lib/libc10.so)
  if(NOT EXISTS "${NARROW_TORCH_WHEEL}/${part}")
    set(Torch_FOUND FALSE)
    set(Torch_NOT_FOUND_MESSAGE "NARROW_TORCH_WHEEL has no ${part}: '${NARROW_TORCH_WHEEL}'")
    return()
  endif()
endforeach()
# Its own headers alone: beside them lie those of other libraries, fmt among them, of versions that
# narrow is not linked with.
set(torch_headers "${CMAKE_BINARY_DIR}/torch_headers")
file(MAKE_DIRECTORY "${torch_headers}")
foreach(part ATen c10 caffe2 torch)
  file(CREATE_LINK "${NARROW_TORCH_WHEEL}/include/${part}" "${torch_headers}/${part}" SYMBOLIC)
endforeach()
set(TORCH_INCLUDE_DIRS "${torch_headers}" "${torch_headers}/torch/csrc/api/include")
set(TORCH_LIBRARIES "${NARROW_TORCH_WHEEL}/lib/libtorch_cpu.so"
                    "${NARROW_TORCH_WHEEL}/lib/libc10.so")
set(Torch_FOUND TRUE)
