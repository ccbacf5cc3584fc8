import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.Properties;
import java.util.Scanner;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Writes what stands on its input in one transaction: bootstrap, topic, codec, transactional id, commit or abort. */
public final class OutsideProducer {
    public static void main(String[] arguments) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", arguments[0]);
        settings.put("compression.type", arguments[2]);
        settings.put("transactional.id", arguments[3]);
        settings.put("linger.ms", "50");
        try (KafkaProducer<byte[], byte[]> producer =
                new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
                Scanner lines = new Scanner(System.in, StandardCharsets.UTF_8)) {
            producer.initTransactions();
            producer.beginTransaction();
            while (lines.hasNextLine()) {
                String[] parts = lines.nextLine().split(" ");
                byte[] key = parts[1].getBytes(StandardCharsets.UTF_8);
                byte[] value = Base64.getDecoder().decode(parts[2]);
                var record = new ProducerRecord<>(arguments[1], Integer.valueOf(parts[0]), key, value);
                for (int header = 3; header < parts.length; header += 2) {
                    record.headers().add(parts[header], Base64.getDecoder().decode(parts[header + 1]));
                }
                producer.send(record);
            }
            if (arguments[4].equals("commit")) {
                producer.commitTransaction();
            } else {
                producer.flush();
                producer.abortTransaction();
            }
        }
    }
}
