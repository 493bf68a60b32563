package example;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.GlobalKTable;

/**
 * Follows Swapstream's registry: prints each deployment event with what the manifest of its version
 * says. Arguments: bootstrap servers, and a prefix of the topics' names.
 */
public final class RegistryReader {
  private static final ObjectMapper JSON = new ObjectMapper();

  public static void main(String[] args) throws IOException {
    String prefix = args.length > 1 ? args[1] : "";
    Path state = Files.createTempDirectory("registry-reader");
    Properties config = new Properties();
    config.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, args.length > 0 ? args[0] : "localhost:9092");
    config.put(StreamsConfig.APPLICATION_ID_CONFIG, "registry-reader-" + state.getFileName());
    config.put(StreamsConfig.STATE_DIR_CONFIG, state.toString());
    // A version exists once its transaction is committed.
    config.put(StreamsConfig.consumerPrefix("isolation.level"), "read_committed");
    config.put(StreamsConfig.globalConsumerPrefix("isolation.level"), "read_committed");
    config.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
    KafkaStreams streams = new KafkaStreams(topology(prefix), config);
    Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
    streams.start();
  }

  static Topology topology(String prefix) {
    Serde<byte[]> bytes = Serdes.ByteArray();
    Serde<String> text = Serdes.String();
    StreamsBuilder builder = new StreamsBuilder();
    // Key <model>/<version>, value the manifest: all versions there are.
    GlobalKTable<String, byte[]> versions =
        builder.globalTable(prefix + "model-versions", Consumed.with(text, bytes));
    // Key <model>, value the event; the offset is its revision.
    builder.stream(prefix + "model-deployments", Consumed.with(text, bytes))
        .mapValues(RegistryReader::parse)
        .leftJoin(
            versions,
            (model, event) -> model + "/" + event.path("version").asText(),
            (model, event, manifest) -> line(model, event, manifest))
        .foreach((model, line) -> System.out.println(line));
    return builder.build();
  }

  /** What Swapstream itself cannot read either is shown as nothing. */
  private static JsonNode parse(byte[] value) {
    try {
      return value == null ? JSON.createObjectNode() : JSON.readTree(value);
    } catch (IOException unreadable) {
      return JSON.createObjectNode();
    }
  }

  private static String line(String model, JsonNode event, byte[] manifest) {
    JsonNode version = parse(manifest);
    try {
      return JSON.writeValueAsString(
          JSON.createObjectNode()
              .put("model", model)
              .put("action", event.path("action").asText(null))
              .put("version", event.path("version").asText(null))
              .put("by", event.path("by").asText(null))
              .put("reason", event.path("reason").asText(null))
              .put("digest", version.path("artifact").path("digest").asText(null))
              .set("metrics", version.path("lineage").path("metrics")));
    } catch (IOException impossible) {
      throw new UncheckedIOException(impossible);
    }
  }
}
