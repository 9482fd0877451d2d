import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Fills a topic by Java's producer: transactions of two producers, interleaved, some aborted, one left open at the end, and
 * records that are in none, in batches of several codecs. Prints what a reader of committed records must see of it, in the
 * order of each partition: partition, offset and value with tabs between.
 *
 *   scripts/kafka-local.sh tool tests/kafka/programs/Transactions.java BOOTSTRAP TOPIC PARTITIONS ROUNDS
 */
public class Transactions {
    record Sent(Future<RecordMetadata> where, String value) {}

    record Seen(int partition, long offset, String value) {}

    static KafkaProducer<String, String> producer(String brokers, String codec, String transactionalId) {
        Map<String, Object> config = new HashMap<>();
        config.put("bootstrap.servers", brokers);
        config.put("compression.type", codec);
        config.put("linger.ms", 5);
        if (transactionalId != null) {
            config.put("transactional.id", transactionalId);
            config.put("transaction.timeout.ms", 600_000); // the open one stays open
        }
        var producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer());
        if (transactionalId != null) producer.initTransactions();
        return producer;
    }

    public static void main(String[] args) throws Exception {
        String brokers = args[0], topic = args[1];
        int partitions = Integer.parseInt(args[2]), rounds = Integer.parseInt(args[3]), number = 0;
        Random random = new Random(20260131); // fixed: the same transactions each time
        var producers = List.of(
                producer(brokers, "gzip", topic + "-a"), producer(brokers, "lz4", topic + "-b"), producer(brokers, "zstd", null));
        List<List<Sent>> open = List.of(new ArrayList<>(), new ArrayList<>(), new ArrayList<>());
        List<Sent> committed = new ArrayList<>();
        for (int round = 0; round < rounds; round++) {
            int who = random.nextInt(3);
            var producer = producers.get(who);
            var sent = open.get(who);
            if (who < 2 && sent.isEmpty()) producer.beginTransaction();
            for (int i = random.nextInt(30); i >= 0; i--) {
                String value = "record-" + number++ + "-of-" + who;
                sent.add(new Sent(producer.send(new ProducerRecord<>(topic, random.nextInt(partitions), "k", value)), value));
            }
            producer.flush(); // what follows of the others comes behind it
            int fate = random.nextInt(6);
            if (who == 2 || fate < 2) {
                if (who < 2) producer.commitTransaction();
                committed.addAll(sent);
                sent.clear();
            } else if (fate == 2) {
                producer.abortTransaction();
                sent.clear();
            } // else it stays open for a while
        }
        for (int who = 0; who < 2; who++) {
            if (open.get(who).isEmpty()) continue;
            producers.get(who).commitTransaction();
            committed.addAll(open.get(who));
        }
        // One stays open: nothing behind its first record in a partition is known to be committed.
        producers.get(0).beginTransaction();
        for (int p = 0; p < partitions; p++) producers.get(0).send(new ProducerRecord<>(topic, p, "k", "open")).get();
        for (int p = 0; p < partitions; p++) producers.get(2).send(new ProducerRecord<>(topic, p, "k", "behind")).get();

        List<Seen> seen = new ArrayList<>();
        for (Sent s : committed) seen.add(new Seen(s.where.get().partition(), s.where.get().offset(), s.value));
        seen.sort(Comparator.comparingInt(Seen::partition).thenComparingLong(Seen::offset));
        StringBuilder out = new StringBuilder();
        for (Seen s : seen) out.append(s.partition + "\t" + s.offset + "\t" + s.value + "\n");
        System.out.print(out);
        System.out.flush();
        Runtime.getRuntime().halt(0); // closing would abort it
    }
}
