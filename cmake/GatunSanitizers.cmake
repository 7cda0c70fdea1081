# -DGATUN_SANITIZE=address;undefined or thread: the library and its tests are built with it.
set(GATUN_SANITIZE "" CACHE STRING "Sanitizers: address;undefined or thread")

if(GATUN_SANITIZE)
  string(REPLACE ";" "," gatun_sanitizers "${GATUN_SANITIZE}")
  add_compile_options(-fsanitize=${gatun_sanitizers} -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
  add_link_options(-fsanitize=${gatun_sanitizers})
endif()
