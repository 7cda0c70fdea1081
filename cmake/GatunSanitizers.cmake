# -DGATUN_SANITIZE=address;undefined or thread: the library and its tests are built with it, with little optimization
# and loops as loops, since the kernels' unrolled ones, every access of which is checked, take compilers hours. Clang
# needs a few minutes; gcc several times as long for src/cpu/avx512/linear_i8.c.
set(GATUN_SANITIZE "" CACHE STRING "Sanitizers: address;undefined or thread")

if(GATUN_SANITIZE)
  string(REPLACE ";" "," gatun_sanitizers "${GATUN_SANITIZE}")
  set(CMAKE_C_FLAGS_RELEASE "-O1")
  add_compile_definitions(GATUN_ROLLED)
  add_compile_options(-fsanitize=${gatun_sanitizers} -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
  add_link_options(-fsanitize=${gatun_sanitizers})
endif()
