package peer;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import ai.onnxruntime.TensorInfo;
import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.LongBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.processor.api.RecordMetadata;

/**
 * The peer of benches/end_to_end: a Kafka Streams application that scores each record with ONNX
 * Runtime. One argument: a JSON file that says which topics, which model, and how an event is read.
 *
 * <p>Kafka Streams hands records over one at a time and commits what it has handed over, so that
 * records cannot be held back for a batch without giving up its guarantee; inference is one row a
 * call. Everything that can be kept is: the JSON is read by Jackson's streaming parser straight into
 * a direct buffer that the input tensor shares, the output is written by its generator, and the
 * session runs with one thread.
 */
public final class Peer {
    public static void main(String[] args) throws Exception {
        JsonNode job = new ObjectMapper().readTree(new File(args[0]));
        OrtEnvironment environment = OrtEnvironment.getEnvironment();
        OrtSession.SessionOptions options = new OrtSession.SessionOptions();
        options.setIntraOpNumThreads(1);
        options.setInterOpNumThreads(1);
        OrtSession session =
                environment.createSession(job.get("model_file").asText(), options);

        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(
                        job.get("input_topic").asText(),
                        Consumed.with(Serdes.ByteArray(), Serdes.ByteArray()))
                .process(() -> new Scorer(job, environment, session))
                .to(
                        job.get("output_topic").asText(),
                        Produced.with(Serdes.ByteArray(), Serdes.ByteArray()));

        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, job.get("group").asText());
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, job.get("bootstrap").asText());
        settings.put(StreamsConfig.STATE_DIR_CONFIG, job.get("state_dir").asText());
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        settings.put(
                StreamsConfig.PROCESSING_GUARANTEE_CONFIG,
                job.get("exactly_once").asBoolean()
                        ? StreamsConfig.EXACTLY_ONCE_V2
                        : StreamsConfig.AT_LEAST_ONCE);
        settings.put(
                StreamsConfig.COMMIT_INTERVAL_MS_CONFIG,
                job.get("exactly_once").asBoolean() ? 100 : 1000);
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        // More records a poll, larger batches, and the compression that all processors use.
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 5000);
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.FETCH_MIN_BYTES_CONFIG), 1);
        settings.put(
                StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG),
                job.get("compression").asText());
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 512 * 1024);
        settings.put(
                StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG),
                job.get("linger_ms").asInt());
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.ACKS_CONFIG), "all");
        for (String prefix : new String[] {"consumer.", "producer."}) {
            // No metrics reporter: nobody reads them here.
            settings.put(prefix + "auto.include.jmx.reporter", false);
        }

        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        CountDownLatch ended = new CountDownLatch(1);
        streams.setUncaughtExceptionHandler(
                error -> {
                    error.printStackTrace();
                    Runtime.getRuntime().halt(1);
                    return null;
                });
        Runtime.getRuntime()
                .addShutdownHook(
                        new Thread(
                                () -> {
                                    streams.close();
                                    ended.countDown();
                                }));
        streams.start();
        ended.await();
    }

    /** Scores one record at a time. */
    private static final class Scorer implements Processor<byte[], byte[], byte[], byte[]> {
        private final OrtSession session;
        private final String[] outputNames;
        private final String format;
        private final Map<String, Integer> places = new HashMap<>();
        private final String[] include;
        private final byte[] prefix;
        private final byte[][] headerValues;
        private final String[] headerNames = {"model-name", "model-version", "model-digest"};
        private final FloatBuffer input;
        private final int width;
        private final Map<String, OnnxTensor> feed;
        private final JsonFactory json =
                JsonFactory.builder()
                        .streamReadConstraints(
                                StreamReadConstraints.builder().maxStringLength(64 << 20).build())
                        .build();
        private final ByteArrayOutputStream out = new ByteArrayOutputStream(1024);
        private final String[] included;
        private final boolean[] includedIsText;
        private ProcessorContext<byte[], byte[]> context;

        Scorer(JsonNode job, OrtEnvironment environment, OrtSession session) {
            try {
                this.session = session;
                outputNames = session.getOutputNames().toArray(new String[0]);
                format = job.get("format").asText();
                int at = 0;
                for (JsonNode name : job.get("features")) {
                    places.put(name.asText(), at++);
                }
                include = texts(job.get("include"));
                included = new String[include.length];
                includedIsText = new boolean[include.length];
                headerValues =
                        new byte[][] {
                            bytes(job.get("model").asText()),
                            bytes(job.get("version").asText()),
                            bytes(job.get("digest").asText())
                        };
                prefix =
                        bytes(
                                "{\"schema\":\"swapstream.prediction/v1\",\"model\":\""
                                        + job.get("model").asText()
                                        + "\",\"version\":\""
                                        + job.get("version").asText()
                                        + "\",\"digest\":\""
                                        + job.get("digest").asText()
                                        + "\",\"revision\":0,\"outputs\":{");
                String name = session.getInputNames().iterator().next();
                TensorInfo info = (TensorInfo) session.getInputInfo().get(name).getInfo();
                long[] shape = info.getShape();
                shape[0] = 1;
                long size = Arrays.stream(shape).reduce(1, (a, b) -> a * b);
                width = (int) size;
                input =
                        ByteBuffer.allocateDirect(width * 4)
                                .order(ByteOrder.nativeOrder())
                                .asFloatBuffer();
                // The tensor shares the buffer's memory: it is made once.
                feed = Map.of(name, OnnxTensor.createTensor(environment, input, shape));
            } catch (OrtException error) {
                throw new IllegalStateException(error);
            }
        }

        private static String[] texts(JsonNode list) {
            String[] texts = new String[list.size()];
            for (int i = 0; i < texts.length; i++) {
                texts[i] = list.get(i).asText();
            }
            return texts;
        }

        private static byte[] bytes(String text) {
            return text.getBytes(StandardCharsets.UTF_8);
        }

        @Override
        public void init(ProcessorContext<byte[], byte[]> context) {
            this.context = context;
        }

        @Override
        public void process(Record<byte[], byte[]> record) {
            try {
                decode(record.value());
                byte[] value;
                try (OrtSession.Result result = session.run(feed)) {
                    value = encode(result, record.timestamp());
                }
                Record<byte[], byte[]> prediction = record.withValue(value);
                for (int i = 0; i < headerNames.length; i++) {
                    prediction.headers().add(headerNames[i], headerValues[i]);
                }
                context.forward(prediction);
            } catch (IOException | OrtException error) {
                throw new IllegalStateException(error);
            }
        }

        private void decode(byte[] event) throws IOException {
            try (JsonParser parser = json.createParser(event)) {
                parser.nextToken();
                while (parser.nextToken() == JsonToken.FIELD_NAME) {
                    String name = parser.currentName();
                    JsonToken token = parser.nextToken();
                    Integer place = places.get(name);
                    if (place != null) {
                        switch (format) {
                            case "features" ->
                                    input.put(
                                            place,
                                            token == JsonToken.VALUE_NULL
                                                    ? Float.NaN
                                                    : (float) parser.getDoubleValue());
                            case "array" -> {
                                int at = 0;
                                while (parser.nextToken() != JsonToken.END_ARRAY) {
                                    input.put(at++, (float) parser.getDoubleValue());
                                }
                            }
                            default -> separated(parser);
                        }
                    }
                    int copied = index(name);
                    if (copied >= 0) {
                        includedIsText[copied] = token == JsonToken.VALUE_STRING;
                        included[copied] = text(parser, token);
                    } else if (place == null) {
                        parser.skipChildren();
                    }
                }
            }
        }

        /** The text of a copied value; an array that was read already is written anew. */
        private String text(JsonParser parser, JsonToken token) throws IOException {
            if (token != JsonToken.START_ARRAY) {
                return parser.getText();
            }
            StringBuilder text = new StringBuilder(width * 12).append('[');
            for (int i = 0; i < width; i++) {
                if (i > 0) {
                    text.append(',');
                }
                text.append(input.get(i));
            }
            return text.append(']').toString();
        }

        private int index(String name) {
            for (int i = 0; i < include.length; i++) {
                if (include[i].equals(name)) {
                    return i;
                }
            }
            return -1;
        }

        /** Numbers with commas between them, as Crayfish writes them. */
        private void separated(JsonParser parser) throws IOException {
            String text = parser.getText();
            int at = 0;
            int from = 0;
            for (int comma = text.indexOf(','); comma >= 0; comma = text.indexOf(',', from)) {
                input.put(at++, Float.parseFloat(text.substring(from, comma)));
                from = comma + 1;
            }
            if (from < text.length()) {
                input.put(at++, Float.parseFloat(text.substring(from)));
            }
        }

        private byte[] encode(OrtSession.Result result, long timestamp)
                throws IOException, OrtException {
            out.reset();
            out.write(prefix);
            out.write('"');
            for (int i = 0; i < outputNames.length; i++) {
                if (i > 0) {
                    out.write(',');
                    out.write('"');
                }
                out.write(bytes(outputNames[i]));
                out.write('"');
                out.write(':');
                OnnxTensor tensor = (OnnxTensor) result.get(i);
                LongBuffer longs = tensor.getLongBuffer();
                if (longs != null) {
                    out.write(bytes(Long.toString(longs.get(0))));
                } else {
                    FloatBuffer floats = tensor.getFloatBuffer();
                    int count = floats.remaining();
                    if (count > 1) {
                        out.write('[');
                    }
                    for (int j = 0; j < count; j++) {
                        if (j > 0) {
                            out.write(',');
                        }
                        out.write(bytes(Float.toString(floats.get(j))));
                    }
                    if (count > 1) {
                        out.write(']');
                    }
                }
            }
            RecordMetadata origin = context.recordMetadata().orElseThrow();
            out.write(
                    bytes(
                            "},\"input\":{\"topic\":\""
                                    + origin.topic()
                                    + "\",\"partition\":"
                                    + origin.partition()
                                    + ",\"offset\":"
                                    + origin.offset()
                                    + ",\"timestamp\":"
                                    + timestamp
                                    + "}"));
            if (include.length > 0) {
                out.write(bytes(",\"include\":"));
                try (JsonGenerator generator = json.createGenerator(out)) {
                    generator.writeStartObject();
                    for (int i = 0; i < include.length; i++) {
                        generator.writeFieldName(include[i]);
                        if (includedIsText[i]) {
                            generator.writeString(included[i]);
                        } else {
                            generator.writeRawValue(included[i]);
                        }
                    }
                    generator.writeEndObject();
                }
            }
            out.write('}');
            return out.toByteArray();
        }
    }
}
