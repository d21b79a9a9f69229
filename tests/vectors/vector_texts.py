"""The text of the reference vectors: hand-written samples, and what a seeded generator makes of them.

The generator is our own: the random module does not promise the same choices from one Python version to
the next.
"""


class Rng:
    """SplitMix64."""

    MASK = (1 << 64) - 1

    def __init__(self, seed):
        self.state = seed & self.MASK

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & self.MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & self.MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & self.MASK
        return z ^ (z >> 31)

    def below(self, n):
        return (self.next() >> 11) % n

    def between(self, low, high):
        return low + self.below(high - low + 1)

    def pick(self, items):
        return items[self.below(len(items))]

    def sample(self, items, count):
        """`count` items, each index once, in random order."""
        items = list(items)
        for i in range(len(items) - 1, 0, -1):
            j = self.below(i + 1)
            items[i], items[j] = items[j], items[i]
        return items[:count]


SENTENCES = [
    # Latin without diacritics
    "The harbour was quiet before dawn, and only one boat had its lamp lit.",
    "Please send the signed form back by Friday; we can't start without it.",
    "A model that fits in memory is faster than one that doesn't.",
    "\"Who's there?\" she asked. \"It's only me,\" he said, \"and I've brought soup.\"",
    "He'll say they'd have known we're late, but I'm sure it's nobody's fault.",
    "Water boils at 100 degrees Celsius (212 F) at sea level.",
    "The committee re-elected Dr. O'Neill-Smith, Ph.D., by 14 votes to 3.",
    "SHOUTING DOESN'T HELP; THEY'RE ALREADY HERE AND WE'VE ASKED TWICE.",
    "mixedCase identifiers, snake_case ones and kebab-case-ones all split differently",
    "e.g. this, i.e. that, etc. -- and so on... or not?!",
    "Unbelievably, antidisestablishmentarianism appeared twice on page xii.",
    "Contact us at help@example.org or https://example.org/a/b?c=d&e=f#g.",
    "Ang batang lalaki ay nagbasa ng aklat sa ilalim ng puno.",
    "Kitabu hiki ni kizuri sana, lakini ni kirefu.",
    "Saya pergi ke pasar untuk membeli beras dan ikan.",
    # Latin with diacritics
    "Le garçon a mangé la crème brûlée à côté de la forêt, où l'été s'achève.",
    "L'œuvre naïve de l'élève coûte 3 €, n'est-ce pas ?",
    "Der Fluß fließt größtenteils südwärts; die Bäche sind kälter.",
    "Straßenbahnhaltestellenverzeichnis und Donaudampfschifffahrt",
    "El niño pidió más piñas, ¿verdad? ¡Sí, señor!",
    "A ação começou às três, não às nove; os pães já estão prontos.",
    "Zażółć gęślą jaźń, a potem źle się czuję w łóżku.",
    "Příliš žluťoučký kůň stál u řeky.",
    "Işık ılık süt içti; İstanbul'un ğ harfi yumuşaktır.",
    "Trời hôm nay đẹp quá, chúng ta đi dạo nhé?",
    "Az őrült író nyúlcipőt hűt a fűben.",
    "Þórður og Ævar sáu fjörðinn í gær.",
    "Ștefan își duce câinele în pădure lângă țară.",
    "Smörgåsbordet stod på ön där älven börjar.",
    "Rødgrød med fløde på en ø i åen.",
    "Šaltą žiemą ąžuolas ūžė vėjyje; kaķis gulēja pie krāsns.",
    "Ọjọ́ dára, ẹ káàárọ̀, báwo ni ilé?",
    "ʻO ka manu ʻulaʻula i luna o ke kumulāʻau.",
    "Ĉu vi ŝatas manĝi ĵaŭde? Eĥoŝanĝo!",
    # Greek
    "Η γάτα κοιμάται δίπλα στο παράθυρο όταν βρέχει.",
    "ὁ ἄνθρωπος ἔρχεται εἰς τὴν πόλιν ᾧ τινι τρόπῳ",
    "Το κόστος είναι 12,50 € — ναι, δώδεκα και μισό.",
    # Cyrillic
    "Утром на реке был туман, и лодки стояли у берега.",
    "Съешь ещё этих мягких булок, подъезд №7.",
    "Їжак їсть яблуко під ґанком; об'єднання мов.",
    "Љубав и њежност, џеп и ђак: ћирилица.",
    "Қазақ тілінде әріптер көп; өң, ұл, үй, һәм.",
    # Armenian, Georgian
    "Գիրքը սեղանի վրա է, իսկ լամպը՝ պատուհանի մոտ։",
    "წიგნი მაგიდაზე დევს და ფანჯარა ღიაა.",
    # Arabic script
    "الكتاب على الطاولة والنافذة مفتوحة.",
    "كَتَبَ الوَلَدُ رِسَالَةً إِلَى صَدِيقِهِ.",
    "این کتاب روی میز است؛ می‌خواهم آن را بخوانم.",
    "یہ کتاب بہت اچھی ہے، کیا آپ نے پڑھی؟",
    "السعر ١٢٣٤ ريالاً و٥٦ هللة",
    # Hebrew
    "הספר על השולחן והחלון פתוח.",
    "בְּרֵכַת הַדָּגִים קְטַנָּה מְאֹד",
    # Indic
    "किताब मेज़ पर है और खिड़की खुली है।",
    "क्षत्रिय, ज्ञान, श्री, र्‍य — संयुक्ताक्षर १२३",
    "বইটি টেবিলের উপর আছে এবং জানালা খোলা।",
    "ਕਿਤਾਬ ਮੇਜ਼ ਉੱਤੇ ਹੈ।",
    "પુસ્તક ટેબલ પર છે.",
    "புத்தகம் மேசையின் மேல் உள்ளது.",
    "పుస్తకం బల్ల మీద ఉంది.",
    "ಪುಸ್ತಕವು ಮೇಜಿನ ಮೇಲಿದೆ.",
    "പുസ്തകം മേശപ്പുറത്തുണ്ട്.",
    "පොත මේසය මත තිබේ.",
    # South-East Asia
    "หนังสืออยู่บนโต๊ะและหน้าต่างเปิดอยู่ ๑๒๓",
    "ປຶ້ມຢູ່ເທິງໂຕະ",
    "សៀវភៅនៅលើតុ។",
    "စာအုပ်က စားပွဲပေါ်မှာရှိတယ်။",
    # Tibetan, Ethiopic, Cherokee, Mongolian
    "དེབ་ཅོག་ཙེའི་སྟེང་ལ་འདུག །",
    "መጽሐፉ በጠረጴዛው ላይ ነው።",
    "ᎪᏪᎵ ᎦᏍᎩᎸ ᎦᎸᎳᏗ",
    "ᠨᠣᠮ ᠰᠢᠷᠡᠭᠡ ᠳᠡᠭᠡᠷ᠎ᠡ",
    # East Asia
    "书在桌子上，窗户开着。",
    "書在桌子上，窗戶開著；今天是二〇二四年三月五日。",
    "我们用GPU跑了3个模型，速度提高了25%。",
    "本は机の上にあり、窓は開いています。",
    "カタカナとひらがな、漢字ｶﾅ、ー「」『』。",
    "東京都に３人で行った。ＡＢＣ！",
    "책은 책상 위에 있고 창문은 열려 있다.",
    "한국어와 English를 섞어 쓰면 어떻게 될까요? ㅋㅋㅋ",
    "한글 (자모로 푼 것)",
    # Emoji
    "Good morning ☀️ and good night 🌙✨",
    "👩‍💻👨‍👩‍👧‍👦🏳️‍🌈🧑🏽‍🚀",
    "👍👍🏻👍🏼👍🏽👍🏾👍🏿",
    "🇫🇷🇩🇪🇯🇵 flags 🇺🇳",
    "1️⃣2️⃣#️⃣*️⃣ keycaps",
    "❤️ ❤ ♥︎ ☎︎ ☎️",
    "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f tag sequence",
    # Mathematics, symbols
    "∀x∈ℝ: ∃y≤x², ∑ᵢ₌₁ⁿ aᵢ ≠ ∫₀^∞ e^{-t} dt ⇒ ⊥",
    "𝔄𝔅ℭ 𝒻(𝓍) = 𝟙 + 𝟚, α→β, f∘g, √2 ≈ 1.41421",
    "½ + ¼ = ¾; 10⁻³ m² · 5 µg ± 0.1‰",
    "→ ← ↑ ↓ ⇄ ■ □ ▲ ◆ ★ ☆ ✓ ✗ ♪ ♫ ♭ ♯",
    "┌──┬──┐ │ab│cd│ └──┴──┘ ░▒▓█",
    "$5 £6 €7 ¥8 ₹9 ₽10 ₿0.5 ¢99",
    "© 2024 ® ™ § ¶ † ‡ • … ‰ ′ ″ ‹ › « » „ “ ” ‘ ’ ‚",
    "ⅠⅡⅢ ⅳ ① ② ⑳ ㊙ ㋿ ㎏ ℃ № ℡",
    "ɪntəˈnæʃənəl fəˈnɛtɪk ˈælfəbɪt",
    "⠃⠗⠇ ᚱᚢᚾ 𐌰𐌱𐌲 𓀀𓁐 𐎀𐎁 𝄞",
    # Combining marks and invisible characters
    "e\u0301 vs \u00e9, A\u030a vs \u00c5 vs \u212b, o\u0323\u0302 vs \u1ed9",
    "Z\u0351\u036b\u0343a\u0324\u033al\u0356\u0317g\u0353\u0354o\u031f\u0321",
    "zero\u200bwidth\u200cjoin\u200ders\u2060and\ufeffmarks",
    "\u202eright to left override\u202c and \u2066isolate\u2069",
    "soft\u00adhyphen\u00adated word, non\u2011breaking hyphen",
    "private \ue000\uf8ff use, noncharacters \ufdd0 \uffff, replacement \ufffd",
    "\U0001f9ff\U0002070e\U000323af \u4dff\u9fff\u3400",
]

CODE = [
    "#include <stdio.h>\n\nint main(int argc, char **argv)\n{\n\tfor (int i = 0; i < argc; i++)\n"
    "\t\tprintf(\"%d: %s\\n\", i, argv[i]);\n\treturn 0;\n}\n",
    "static inline uint32_t rotl(uint32_t x, int k) { return (x << k) | (x >> (32 - k)); }\n",
    "template <typename T, size_t N>\nconstexpr auto sum(const std::array<T, N>& a) -> T {\n"
    "    T s{};\n    for (auto&& v : a) s += v;\n    return s;\n}\n",
    "def mean(xs):\n    \"\"\"The arithmetic mean; None for an empty list.\"\"\"\n"
    "    if not xs:\n        return None\n    return sum(xs) / len(xs)\n",
    "class Tree:\n    def __init__(self, left=None, right=None):\n        self.left, self.right = left, right\n\n"
    "    @property\n    def depth(self) -> int:\n"
    "        return 1 + max((c.depth for c in (self.left, self.right) if c), default=0)\n",
    "print(f\"{x!r:>10} {y:0.3f}\", end='')  # don't add a newline\n",
    "fn main() -> Result<(), Box<dyn Error>> {\n    let v: Vec<_> = (0..10).filter(|n| n % 3 == 0).collect();\n"
    "    println!(\"{:?}\", v);\n    Ok(())\n}\n",
    "impl<'a> Iterator for Words<'a> { type Item = &'a str; }\n",
    "func (s *Server) Close() error {\n\ts.mu.Lock()\n\tdefer s.mu.Unlock()\n\treturn s.ln.Close()\n}\n",
    "const add = async (a, b) => { await null; return a + b; };\nexport default add;\n",
    "interface Point { readonly x: number; y?: number | undefined }\n",
    "document.querySelector('#id > .cls')?.addEventListener(\"click\", e => e.preventDefault());\n",
    "public final class Pair<A, B> {\n    private final A a;\n"
    "    @Override public String toString() { return \"(\" + a + \")\"; }\n}\n",
    "SELECT name, COUNT(*) AS n FROM users WHERE age >= 18 AND name LIKE 'O''%' GROUP BY 1 ORDER BY n DESC;\n",
    "<!DOCTYPE html>\n<html lang=\"en\"><body><p class='x'>Hi&nbsp;there &amp; bye</p><br/></body></html>\n",
    "<table><tr><td>1</td><td>2</td></tr></table><ul><li>a</li></ul><h1>T</h1><b>x</b>",
    ".box:hover::after { content: \"\\201C\"; margin: 0 auto !important; color: #ff00AA; }\n",
    "{\"a\": [1, 2.5e-3, null, true], \"b\": {\"c\": \"\\u00e9\\n\"}}\n",
    "name: build\non: [push]\njobs:\n  test:\n    steps:\n      - run: make -j2\n",
    "[section]\nkey = \"value\" # comment\nlist = [1, 2]\n",
    "all: main.o\n\t$(CC) -o $@ $^\n\n.PHONY: clean\nclean:\n\trm -f *.o\n",
    "for f in *.txt; do\n  [ -s \"$f\" ] || continue\n"
    "  sed -e 's/a\\/b/c/g' \"$f\" | awk '{print $1}' >> out 2>&1\ndone\n",
    "if [[ ${a:-} == b* && $# -gt 0 ]]; then echo \"$((1 + 2))\" `date +%s`; fi\n",
    "(defun fact (n) (if (<= n 1) 1 (* n (fact (- n 1)))))\n",
    "quicksort (p:xs) = quicksort [x | x <- xs, x < p] ++ [p] ++ quicksort [x | x <- xs, x >= p]\n",
    "\\begin{equation}\n  E = mc^2 \\quad \\text{where } c \\approx 3\\times10^{8}\n\\end{equation}\n",
    "    mov     eax, DWORD PTR [rbp-4]\n    imul    eax, eax, 0x1F\n    jne     .L3\n",
    "^(?:[A-Za-z0-9_.+-]+)@(?!-)[^\\s@]{2,}\\.(com|org)$\n",
    "--- a/file.c\n+++ b/file.c\n@@ -1,3 +1,4 @@\n-old line\n+new line\n context\n",
    "my %h = map { $_ => 1 } grep { !/^#/ } <STDIN>; print \"@{[ keys %h ]}\\n\";\n",
    "      PROGRAM HELLO\n      WRITE(*,*) 'HELLO'\n      END PROGRAM\n",
    "__global__ void axpy(int n, float a, const float *x, float *y) {\n"
    "    int i = blockIdx.x * blockDim.x + threadIdx.x;\n    if (i < n) y[i] = a * x[i] + y[i];\n}\n",
    "val xs = List(1, 2, 3).map(_ * 2).foldLeft(0)(_ + _) // Scala\n",
    "let rec len = function [] -> 0 | _ :: t -> 1 + len t;;\n",
    "puts [1,2,3].each_slice(2).map(&:sum).inspect unless ENV['QUIET']\n",
    "<?php foreach ($a as $k => $v) { echo \"{$k}=$v\\n\"; } ?>\n",
    "library(stats); x <- c(1,2,3); y %in% x; plot(x ~ y)\n",
    "| a | b |\n|---|:-:|\n| 1 | 2 |\n\n# Title\n\n* item\n  * nested\n\n```c\nint x;\n```\n",
    "2024-01-31T23:59:59.123Z [ERROR] worker[42]: code=0x80070005 path=C:\\Users\\x\\file.txt\n",
    "if (a&&b||!c) { x ^= ~y; z <<= 1; w >>>= 2; p->q.r[s]::t; }\n",
    "/* comment */ // another\n#!/usr/bin/env node\n\"use strict\";\n",
]

# Text that looks like a special or byte token of some vocabulary.
SPECIAL_LOOKALIKES = [
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_start|>user\n", "<|im_end|>\n", "<|im_start",
    "im_start|>", "<| im_start |>", "<|IM_START|>", "<repo_name>", "<reponame>", "<file_sep>", "<filename>",
    "<gh_stars>", "<issue_start>", "<jupyter_code>", "<empty_output>", "<start_of_turn>", "<end_of_turn>",
    "<start_of_turn>model\n", "<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "<unused0>", "<unused99>",
    "[multimodal]", "<start_of_image>", "<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "<<SYS>>",
    "<|begin_of_text|>", "<|start_header_id|>", "<|eot_id|>", "<0x0A>", "<0x41>", "<0xFF>", "<0x0a>",
    "\u2581", "\u2581the", "\u2581\u2581", "\u0120", "\u0120the", "\u010a", "\u010d\u010a", "\u0100", "\u0143",
    "<think>", "</think>", "<tool_call>", "<|", "|>", "<||>",
]

SPACES = [
    " ", "  ", "   ", "    ", "        ", " " * 16, " " * 25, "\t", "\t\t", "\t\t\t\t", "\n", "\n\n", "\n\n\n",
    "\n" * 8, "\r", "\r\r", "\r\n", "\r\n\r\n", "\n\r", "\v", "\f", " \t", "\t ", " \n", "\n ", "\n  ", "  \n",
    " \r\n ", " \n \n ", "\n\t\t", "\t\n\t\n", "\n    ", "\r\n    ", "\n        ", "\u00a0", " \u00a0", "\u00a0 ",
    "\u00a0\u00a0", "\u0085", "\u1680", "\u2000", "\u2003", "\u2003\u2003", "\u2009", "\u200a", "\u2028", "\u2029",
    "\u202f", "\u205f", "\u3000", "\u3000\u3000", " \u3000", "\n\u3000", "\u180e", "\u200b", "\ufeff", "\x1c", "\x1f",
]

CONTRACTIONS = ["s", "t", "re", "ve", "m", "ll", "d", "S", "T", "RE", "VE", "M", "LL", "D", "Re", "vE", "lL",
                "st", "sd", "rex", "l", "r", "v", "n", "em", "\u017f"]

APOSTROPHES = ["'", "\u2019", "`", "\u02bc", "''", " '", "' ", "\n'"]

EMOJI = ["😀", "😂🤣", "👍🏽", "👩‍🔬", "👨‍👨‍👦", "🇧🇷", "🇨🇦🇲🇽", "❤️‍🔥", "🫠", "🧵", "☂️", "⚡", "🕵🏿‍♀️", "3️⃣"]

# Inclusive ranges of code points for random text. Only blocks without holes that
# have been full for many Unicode versions, so that a table of another version
# does not change the answer; the last ones are beyond any letter.
BLOCKS = [
    (0x21, 0x7E), (0xA1, 0xFF), (0x100, 0x17F), (0x180, 0x24F), (0x250, 0x2AF), (0x2B0, 0x2FF), (0x300, 0x36F),
    (0x391, 0x3A1), (0x3A3, 0x3FF), (0x400, 0x4FF), (0x531, 0x556), (0x5D0, 0x5EA), (0x620, 0x65F), (0x660, 0x669),
    (0x670, 0x6D3), (0x904, 0x939), (0x93E, 0x94D), (0x966, 0x96F), (0xA85, 0xA8B), (0xBE6, 0xBEF), (0xE01, 0xE3A),
    (0xE40, 0xE5B), (0xF20, 0xF33), (0x1000, 0x104F), (0x10D0, 0x10FF), (0x1100, 0x11FF), (0x1200, 0x1248),
    (0x13A0, 0x13F5), (0x16A0, 0x16EA), (0x1780, 0x17B3), (0x17E0, 0x17E9), (0x1D00, 0x1D7F), (0x1E00, 0x1EFF),
    (0x1F00, 0x1F15), (0x2010, 0x2027), (0x2030, 0x205E), (0x2070, 0x2071), (0x2074, 0x208E), (0x20A0, 0x20BF),
    (0x2100, 0x218B), (0x2190, 0x23FF), (0x2460, 0x24FF), (0x2500, 0x25FF), (0x2600, 0x26FF), (0x2700, 0x27BF),
    (0x2801, 0x28FF), (0x3001, 0x303F), (0x3041, 0x3096), (0x30A0, 0x30FF), (0x3131, 0x318E), (0x3220, 0x32FE),
    (0x3400, 0x4DB5), (0x4E00, 0x9FA5), (0xA000, 0xA48C), (0xAC00, 0xD7A3), (0xF900, 0xFA2D), (0xFE50, 0xFE52),
    (0xFF01, 0xFF5E), (0xFF66, 0xFF9D), (0x10330, 0x1034A), (0x10400, 0x1049D), (0x12000, 0x1236E),
    (0x13000, 0x1342E), (0x1D400, 0x1D454), (0x1D7CE, 0x1D7FF), (0x1F300, 0x1F320), (0x1F600, 0x1F64F),
    (0x1F680, 0x1F6C5), (0x20000, 0x2A6D6), (0xE000, 0xE0FF), (0xE0100, 0xE01EF), (0xF0000, 0xF00FF),
    (0x10FF00, 0x10FFFD),
]

# Digits and other numbers outside ASCII.
NUMBERS_ELSEWHERE = [
    "١٢٣٤٥٦", "۱۲۳۴", "१२३४५", "৪৫৬", "๑๒๓๔", "０１２３４５", "²³¹⁴⁵", "₀₁₂₃", "½⅓¾", "ⅷⅨⅩ", "①②③", "㈠㈡", "〇一二三",
    "𝟎𝟏𝟐𝟑", "𝟘𝟙", "፩፪፫", "༡༢༣", "൧൨", "௧௨௩", "᠑᠒", "𐄇𐄈", "१2३4", "1١1", "Ⅻ3", "x²y³", "H₂O", "5½", "①1",
]


# Each of the following returns a list; the order matters only for the same output from run to run.


def text_sentences(rng):
    out = list(SENTENCES)
    for s in SENTENCES:
        out.append(" " + s)
        out.append(s + rng.pick(SPACES))
        words = s.split(" ")
        out.append(rng.pick(SPACES).join(rng.sample(words, len(words))))
        if len(s) > 12:
            cut = rng.between(3, len(s) - 3)
            out.append(s[:cut])
            out.append(s[cut:])
    for s in SENTENCES[:40]:
        out.append(s.upper())
        out.append(s.title())
    return out


def text_code(rng):
    out = list(CODE)
    out += [c.replace("\n", "\r\n") for c in CODE]
    for c in CODE:
        out += [line for line in c.split("\n") if len(line) > 8]
        out.append(c.replace("    ", "\t"))
        out.append("\n\n" + c.rstrip("\n"))
    return out + ["".join(rng.sample(CODE, 2)) for _ in range(20)]


def text_numbers(rng):
    def digits(n):
        return "".join(rng.pick("0123456789") for _ in range(n))

    out = [digits(n) for n in range(1, 25)]
    out += ["0" * n for n in (2, 3, 4, 7, 16, 40)] + ["1" * n for n in (5, 64)]
    for n in range(1, 13):
        d = digits(n)
        out += [" " + d, "  " + d, d + " ", "a" + d, d + "a", "a " + d + " b", "-" + d, d + ".",
                "\n" + d, "x" + d + "y"]
    out += ["%s.%s" % (digits(rng.between(1, 6)), digits(rng.between(1, 12))) for _ in range(12)]
    out += ["1,234,567.89", "1.234.567,89", "1 234 567", "1'234'567", "1_000_000", "12:34:56.789", "2024-02-29",
            "29/02/2024", "+1 (555) 012-3456", "192.168.0.1:8080", "fe80::1ff:fe23:4567:890a", "0xDEADBEEF", "0b101101",
            "0o755", "1e10", "6.022e23", "-1.5E-07", "100%", "99.9%", "3rd 21st 42nd", "v1.2.3-rc4+build567", "$1,000",
            "#123456", "7x8=56", "3.14159265358979323846", "MMXXIV", "No.5", "4K", "B2B", "h264", "123abc456def", "1/2",
            "1st,2nd;3rd:4th", "12 345 6789 01234", "1-2-3-4-5", "(1)(22)(333)(4444)", "1\n22\n333\n", "9" * 300]
    out += NUMBERS_ELSEWHERE
    out += [rng.pick(["", " ", "a", "\n", "  "]) + n + rng.pick(["", " ", "b", "7", "."]) for n in NUMBERS_ELSEWHERE]
    return out


def text_contractions(rng):
    words = ["it", "we", "they", "I", "you", "O", "rock", "dogs", "5", "café", "мы", "他", "", "x_", "!", "IT"]
    out = []
    for c in CONTRACTIONS:
        for a in APOSTROPHES:
            out.append(rng.pick(words) + a + c + rng.pick(["", " ", " a", ".", "'", "1", "\n", "ing"]))
    out += ["'", "''", "'s", "'S", " 's", "'s's", "'t'Re've", "'", "it's'", "'tis 'twas", "o'clock", "y'all'd've",
            "he'sn't", "'sss", "'ll'LL'lL", "I'm'M", "fo'c's'le", "rock'n'roll", "L'été d'août", "'''docstring'''",
            "can't won't shan't", "CAN'T WON'T SHAN'T", "Can'T", "they'REally", "we'vet", "'\u017f", "IT'\u017f"]
    return out


def text_spaces(rng):
    out = list(SPACES)
    for s in SPACES:
        out += ["a" + s + "b", "a" + s, s + "a", "a " + s + "b", "a" + s + " b", "." + s + ".", "1" + s + "2",
                "a" + s + "!", s + s + "x", "if:" + s + "x" + s + "y"]
    for n in list(range(2, 34)) + [64, 65, 100, 129, 257]:
        out.append(" " * n)
        out.append("a" + " " * n + "b")
        out.append("\n" + " " * n + "return")
        if n < 12:
            out += ["\n" * n, "x" + "\n" * n + "y", "\t" * n + "z", "\t" * n, " \n" * n, "\r\n" * n]
    out += ["\n" * 31 + "a", "\n" * 32, "\n" * 40, "\t" * 32, " " * 32 + "\n" + " " * 32]
    for _ in range(60):
        s = "".join(rng.pick(SPACES) for _ in range(rng.between(2, 5)))
        out.append(rng.pick(["", "word", "w.", "7", "字"]) + s + rng.pick(["", "word", "!", "7", "字", "'s"]))
    return out


def text_specials(rng):
    out = list(SPECIAL_LOOKALIKES)
    for s in SPECIAL_LOOKALIKES:
        out.append(rng.pick(["a", " ", "word ", "\n", "1", "字"]) + s + rng.pick(["b", " ", "\n", "", "2", "!"]))
    out += ["".join(rng.sample(SPECIAL_LOOKALIKES, 3)) for _ in range(25)]
    out += ["<|im_start|>system\nYou are root.<|im_end|>\n<|im_start|>assistant\n",
            "<start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n", "[INST] <<SYS>>\nx\n<</SYS>>\n\ny [/INST]",
            "<|<|im_end|>|>", "<|im_start|><|im_start|>", "</div></div>", "<b><i>x</i></b>", "<strong>a</strong><code>",
            "<h1>\n\n<h2>\t\t<p>   </p>", " <table> ", "<TABLE>", "<tr ><td/>", "<start_of_image> <end_of_image>"]
    return out


def text_repeats(rng):
    out = []
    for c in ["a", "e", "x", "A", "-", "=", "#", "*", ".", "_", "/", "!", "ha", "ab", "é", "ы", "字", "あ", "한", "ก",
              "🙂", "\u0301", "'s", "=-", "0", "\u00a0", "<", "()", "lol ", "\\"]:
        for n in (2, rng.between(3, 9), rng.between(10, 40), rng.between(41, 130)):
            out.append(c * n)
    out += ["a" * 1000, "ab" * 700, "=" * 1500, "é" * 400, "🙂" * 200, "word" * 300, "字" * 500, "." * 2000]
    letters = "abcdefghijklmnopqrstuvwxyz"
    for n in (20, 30, 45, 60, 90, 150, 300, 600):
        out.append("".join(rng.pick(letters) for _ in range(n)))
        out.append("".join(rng.pick(letters + letters.upper()) for _ in range(n)))
    out += ["".join(rng.pick("ACGT") for _ in range(200)), "".join(rng.pick("0123456789abcdef") for _ in range(128)),
            "".join(rng.pick(letters + letters.upper() + "0123456789+/") for _ in range(172)) + "=="]
    return out


def text_ascii(rng):
    printable = [chr(c) for c in range(0x21, 0x7F)]
    out = list(printable)
    out += [" " + c for c in printable]
    out += ["a%sb 1%s2 %s%s" % (c, c, c, c) for c in printable if not c.isalnum()]
    for _ in range(160):
        out.append("".join(rng.pick(printable + [" "]) for _ in range(rng.between(4, 48))))
    punctuation = [c for c in printable if not c.isalnum()]
    for _ in range(80):
        p = "".join(rng.pick(punctuation) for _ in range(rng.between(1, 6)))
        out.append(rng.pick(["", " ", "a", "a ", "1"]) + p
                   + rng.pick(["\n", "\r\n", "\n\n", "\na", " \n", "\r", "a", "\n\n  b"]))
    # Control characters. The six that the SmolLM2 vocabulary cannot spell have
    # a file of their own, see LOSSY.
    out += ["a%sb %s" % (chr(c), chr(c)) for c in list(range(0x00, 0x20)) + [0x7F] if chr(c) not in LOSSY]
    out += ["a%sb %s" % (chr(c), chr(c)) for c in (0x80, 0x84, 0x86, 0x9F, 0xAD)]
    return out


def text_code_points(rng):
    out = []
    for low, high in BLOCKS:
        for sep in ("", " "):
            out.append(sep.join(chr(rng.between(low, high)) for _ in range(rng.between(4, 20))))
        out.append("a%c1%cb %c %c" % tuple(rng.between(low, high) for _ in range(4)))
    for _ in range(80):
        out.append("".join(rng.pick(["", " ", "a", "1"]) + chr(rng.between(*rng.pick(BLOCKS)))
                           for _ in range(rng.between(4, 24))))
    return out


def text_mixed(rng, count):
    words = [w for s in SENTENCES for w in s.split(" ") if w]
    pieces = [w for c in CODE for w in c.replace("\n", " ").split(" ") if w]
    common = ["the", "of", "and", "to", "in", "that", "is", "for", "with", "The", "This", "function", "return",
              "people"]
    out = []
    for _ in range(count):
        s = ""
        for _ in range(rng.between(2, 14)):
            kind = rng.below(20)
            if kind < 6:
                s += rng.pick(words)
            elif kind < 9:
                s += rng.pick(common)
            elif kind < 11:
                s += rng.pick(pieces)
            elif kind == 11:
                s += "".join(rng.pick("0123456789") for _ in range(rng.between(1, 7)))
            elif kind == 12:
                s += rng.pick(APOSTROPHES) + rng.pick(CONTRACTIONS)
            elif kind == 13:
                s += rng.pick(SPECIAL_LOOKALIKES)
            elif kind == 14:
                s += rng.pick(EMOJI)
            elif kind == 15:
                s += rng.pick(NUMBERS_ELSEWHERE)
            elif kind == 16:
                s += chr(rng.between(*rng.pick(BLOCKS)))
            elif kind == 17:
                s += rng.pick([".", ", ", "!?", "...", " (", ") ", "[]", "::", "->", ";\n", "\"", " - ", "/", "@", "#"])
            else:
                s += rng.pick(SPACES)
            if rng.below(2):
                s += " "
        out.append(s)
    return out


# What the splits disagree about: capitals, contractions, combining marks, digits, scripts, signs at
# the ends of lines.
SPLIT_PIECES = [
    "the", "of", "Abc", "DEF", "AbcDEFghi", "mcDonald", "É", "ÉÀ", "éà", "ǅe", "ᾳᾼ", "e\u0301", "\u0301", "न\u093f",
    "ก\u0e34", "\u200d",
    "字", "字典", "ひら", "カナ", "한글", "Ж", "жы", "אב", "ab", "x", "'s", "'S", "'ll", "'Ll", "'VE", "\u2019s", "''", "'", "`", "``",
    "1", "12", "345", "1234567", "٣٤٥٦", "½", "Ⅷ", "²", "０１", " ", "  ", "   ", "\n", "\n\n", "\r\n", " \n ", "\t", "\u3000",
    "\u00a0", "\u2028", "\u0085", "$", "+=", "<=", "^", "~~", "|", "(", ")", "[", "_", ".", "...", "!", "?!", ",", "/", "/\n", "//",
    ">\n", ";\r\n", "…", "。", "，", "、", "،", "।", "“", "”", "#", "@", "&", "€", "→", "🙂", "👍🏽", "\x00", "\x7f", "\u00ad",
]


def text_splits(rng, count):
    return ["".join(rng.pick(SPLIT_PIECES) for _ in range(rng.between(4, 24))) for _ in range(count)]


# Code points that have a byte without a token in the SmolLM2 vocabulary:
# llama.cpp leaves those bytes out, so the ids do not spell the text.
LOSSY = ["\x04", "\x06", "\x13", "\x14", "\x16", "\x1d", "\U00040000", "\U0009abcd"]

# Bytes that are not UTF-8. Not here: four-byte forms above U+10FFFF (f4908080),
# on which llama.cpp's BPE throws and takes the process with it.
INVALID = ["80", "ff", "c3", "c328", "61c3", "e282", "e28261", "f09f98", "f09f9861", "c0af", "c080", "e08080", "eda080",
           "edb080", "eda0bdedb880", "f8888080", "fe", "6180628163", "c3a9c3", "20ff20", "ff0a", "31ff32",
           "e4bda0e5", "efbfbfff", "f0808080", "61f1", "dfbf80", "ffffffff"]


def unique(texts):
    seen = set()
    out = []
    for t in texts:
        if t and t not in seen and not any(c in t for c in LOSSY):
            seen.add(t)
            out.append(t)
    return out


def take(rng, texts, count):
    """`count` of the texts, chosen at random, in their first order."""
    if len(texts) <= count:
        return texts
    kept = set(rng.sample(range(len(texts)), count))
    return [t for i, t in enumerate(texts) if i in kept]


def all_texts():
    return {
        "sentences": unique(text_sentences(Rng(1))),
        "code": unique(text_code(Rng(2))),
        "numbers": unique(text_numbers(Rng(3))),
        "contractions": unique(text_contractions(Rng(4))),
        "spaces": unique(text_spaces(Rng(5))),
        "specials": unique(text_specials(Rng(6))),
        "repeats": unique(text_repeats(Rng(7))),
        "ascii": unique(text_ascii(Rng(8))),
        "code_points": unique(text_code_points(Rng(9))),
        "mixed": unique(text_mixed(Rng(10), 1200)),
    }


def choose(texts, shares, count, seed, avoid=None):
    """`count` unique texts: shares[kind] of each kind at most, filled up with mixed ones.
    None holds the string `avoid`."""
    rng = Rng(seed)
    chosen = []
    for kind, share in shares.items():
        chosen += take(rng, texts[kind], share)
    chosen += text_mixed(Rng(seed + 1), 2 * count)
    chosen = [t for t in unique(chosen) if not avoid or avoid not in t][:count]
    assert len(chosen) == count
    return chosen


PRETOKENIZE_SHARES = {"spaces": 110, "contractions": 60, "numbers": 60, "sentences": 30, "code": 25, "ascii": 35,
                      "code_points": 30, "specials": 10, "repeats": 5, "mixed": 35}
