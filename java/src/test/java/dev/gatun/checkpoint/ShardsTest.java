package dev.gatun.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.gatun.GatunException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class ShardsTest {
  private static final String INDEX = "model.safetensors.index.json";

  @TempDir Path temp;

  @BeforeEach
  void twoShards() throws IOException {
    for (String name : new String[] {"a", "b"}) {
      Files.write(
          temp.resolve(name + ".safetensors"),
          SafetensorsFileTest.file(
              "{\"" + name + "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1));
    }
  }

  private Path index(String weightMap) throws IOException {
    return Files.writeString(
        temp.resolve(INDEX), "{\"metadata\":{},\"weight_map\":" + weightMap + "}");
  }

  @Test
  void opensAnIndexAndItsDirectory() throws IOException {
    Path index = index("{\"a\":\"a.safetensors\",\"b\":\"b.safetensors\"}");
    for (Path path : new Path[] {index, temp}) {
      try (Checkpoint checkpoint = Checkpoint.open(path)) {
        assertThat(checkpoint.tensors()).containsOnlyKeys("a", "b");
        assertThat(checkpoint.files()).hasSize(2);
      }
    }
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "../a.safetensors",
        "/a.safetensors",
        "sub/a.safetensors",
        "..\\\\a.safetensors",
        "a.bin",
        "",
        "none.safetensors"
      })
  void refusesShardNamesThatLeadElsewhere(String shard) throws IOException {
    Path index = index("{\"a\":\"" + shard + "\"}");
    assertThatThrownBy(() -> Checkpoint.open(index))
        .isInstanceOf(GatunException.class)
        .hasMessageContaining(INDEX)
        .hasMessageContaining("'a'");
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "[]",
        "{\"a\":1}",
        "{\"a\":null}",
        "{\"c\":\"a.safetensors\"}",
        "{\"a\":\"a.safetensors\""
      })
  void refusesAnIndexThatDoesNotHoldTogether(String weightMap) throws IOException {
    Path index = index(weightMap);
    assertThatThrownBy(() -> Checkpoint.open(index))
        .isInstanceOf(GatunException.class)
        .hasMessageContaining(INDEX);
  }

  @Test
  void refusesADirectoryOfSeveralFilesOrNone() throws IOException {
    assertThatThrownBy(() -> Checkpoint.open(temp))
        .isInstanceOf(GatunException.class)
        .hasMessageContaining("2 files *.safetensors");
    Path empty = Files.createDirectory(temp.resolve("empty"));
    assertThatThrownBy(() -> Checkpoint.open(empty))
        .isInstanceOf(GatunException.class)
        .hasMessageContaining("no *.safetensors");
  }

  @Test
  void refusesOneNameInTwoShards() throws IOException {
    Files.copy(temp.resolve("a.safetensors"), temp.resolve("c.safetensors"));
    Files.write(
        temp.resolve("b.safetensors"),
        SafetensorsFileTest.file(
            "{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                + "\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
            2));
    Files.write(
        temp.resolve("c.safetensors"),
        SafetensorsFileTest.file(
            "{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                + "\"c\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
            2));
    Path index = index("{\"b\":\"b.safetensors\",\"c\":\"c.safetensors\"}");
    assertThatThrownBy(() -> Checkpoint.open(index))
        .isInstanceOf(GatunException.class)
        .hasMessageContaining("'x'");
    Path decided =
        index("{\"b\":\"b.safetensors\",\"c\":\"c.safetensors\",\"x\":\"c.safetensors\"}");
    try (Checkpoint checkpoint = Checkpoint.open(decided)) {
      assertThat(checkpoint.tensors()).containsOnlyKeys("b", "c", "x");
    }
  }
}
