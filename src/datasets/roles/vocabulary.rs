//! The words that folders are named with, in the languages of factories. Every list is plain text, folded as names are
//! before they are compared (no case, no accents), so that `Défaut`, `défaut` and `defaut` are one word.

use super::word::Word;

/// All words by what they say. Of two lists with the same word the first counts.
pub(super) const WORDS: [(Word, &str); 15] = [
    (Word::Normal, NORMAL),
    (Word::Defective, DEFECTIVE),
    (Word::WeakNormal, "go pass perfect golden io bom boa"),
    (Word::WeakDefective, "def deffront"),
    (Word::Mask, MASK),
    (Word::WeakMask, WEAK_MASK),
    (Word::Train, TRAIN),
    (Word::Test, TEST),
    (Word::Validation, VALIDATION),
    (Word::Not, NOT),
    (
        Word::Free,
        "free frei less loos degil değil olmayan なし 無し 없음 없는",
    ),
    (Word::Unsure, UNSURE),
    (Word::Hedge, HEDGE),
    (Word::Neutral, NEUTRAL),
    (Word::Serial, SERIAL),
];

/// Words of classes: folders that are numbered with them hold different things, not more of the same.
pub(super) const CLASS: &str = "class classes cls klass klasse klassen classe clase classi categorie category categories cat type types typ \
    typen tipo tipos grade grades target group groups cluster clusters result results kind category y";

/// Words that only stand together.
pub(super) const PHRASES: [(&[&str], Word); 7] = [
    (&["ground", "truth"], Word::Mask),
    (&["n", "i", "o"], Word::Defective),
    (&["i", "o"], Word::WeakNormal),
    (&["n", "ok"], Word::Defective),
    (&["v", "poradku"], Word::Normal),
    (&["w", "porzadku"], Word::Normal),
    (&["in", "ordnung"], Word::Normal),
];

const NORMAL: &str = "good goods okey normal normals ok okay oks nondefective defectfree faultless flawless spotless conforming \
    conform compliant acceptable accept accepts accepted passed passing approved correct healthy undamaged intact unblemished \
    gut gute guten gutes guter gutteil gutteile normale normaler normales fehlerfrei fehlerfreie fehlerlos fehlerlose mangelfrei einwandfrei intakt \
    unbeschädigt unbeschaedigt unbeschädigte \
    bon bons bonne bonnes normaux normales conforme conformes sain sains \
    bueno buenos buena buenas correcto correctos correcta correctas aceptado aceptados aceptada aceptadas aprobado aprobados aprobada aprobadas \
    buono buoni buona buone normali conformi corretto corretti \
    bons boas normais aprovado aprovados aprovada aprovadas \
    goed goede normaal goedgekeurd goedgekeurde \
    dobry dobre dobra dobrze normalny normalne normalna prawidłowy prawidłowe poprawny poprawne sprawny sprawne \
    dobrý dobré dobrá normální bezvadný bezvadné \
    хороший хорошие хорошо годен годный годные норма нормальный нормальные нормально исправный исправные \
    正常 正常品 良品 合格 合格品 好品 好 完好 良好 良 양품 정상 정상품 합격 합격품 양호 양호품 \
    iyi sağlam saglam kusursuz hatasız hatasiz uygun";

const DEFECTIVE: &str = "bad bads ungood nc defect defects defective defectives ng ngs nok noks ko anomaly anomalies anomalous anomal abnormal \
    abnormals abnormality abnormalities anormal fault faults faulty faulted reject rejects rejected rejection rejections fail \
    fails failed failing failure failures nonconforming nonconform nonconformity unacceptable invalid incorrect scrap scrapped \
    damaged damage damages broken flaw flaws flawed unhealthy outlier outliers nogo imperfect imperfection imperfections error \
    errors scratch scratches scratched crack cracks cracked dent dents dented stain stains stained contaminated contamination \
    corroded corrosion \
    schlecht schlechte schlechten schlechtes schlechtteil schlechtteile fehler fehlerhaft fehlerhafte fehlerteil fehlerteile \
    defekt defekte defekter mangel mängel mangelhaft mangelhafte fehlern mängeln ausschuss ausschuß nio niO anomalie anomalien anormale kaputt beschädigt \
    beschaedigt beschädigte kratzer riss risse \
    mauvais mauvaise mauvaises défaut défauts défectueux défectueuse défectueuses anormaux anormales rebut rebuts cassé cassés \
    rejeté rejetés rayure rayures fissure fissures \
    malo malos mala malas defecto defectos defectuoso defectuosos defectuosa defectuosas anomalía anomalías anormales rechazado \
    rechazados rechazada rechazadas rechazo rechazos fallo fallos falla fallas roto rotos dañado dañados incorrecto incorrectos \
    cattivo cattivi cattiva cattive difetto difetti difettoso difettosi difettosa difettose anomalo anomali anomala anormali \
    scarto scarti guasto guasti rotto rotti graffio graffi \
    ruim mau maus defeito defeitos defeituoso defeituosos defeituosa defeituosas anomalia anomalias anormais rejeitado \
    rejeitados refugo refugos quebrado quebrados reprovado reprovados reprovada reprovadas \
    slecht slechte fout fouten foute foutief defecten afwijking afwijkingen afgekeurd afgekeurde kapot beschadigd gebrek gebreken \
    abnormaal \
    zły złe zła źle wada wady wad wadami usterka usterki usterek defektów wadliwy wadliwe wadliwa uszkodzony uszkodzone uszkodzona defekty nieprawidłowy nieprawidłowe \
    niepoprawny niepoprawne braki odrzut odrzuty odrzucone \
    špatný špatné špatná vada vady vad vadami závad vadný vadné vadná poškozený poškozené poškozená defektní zmetek zmetky chyba chyby chybný chybné \
    nedostatek závada závady \
    плохой плохие плохо брак бракованный бракованные дефект дефекты дефектов дефекта дефектами брака дефектный дефектные аномалия аномалии аномальный аномальные \
    негодный негодные неисправный неисправные повреждение повреждения поврежденный поврежденные \
    不良 不良品 缺陷 缺陷品 有缺陷 异常 異常 異常品 不合格 不合格品 瑕疵 瑕疵品 次品 坏品 坏 故障 破损 划痕 裂纹 欠陥 欠陥品 \
    欠点 傷 キズ 汚れ 불량 불량품 비정상 결함 불합격 이상 하자 스크래치 \
    kötü kotu hatalı hatali hata kusurlu kusur arızalı arizali anomali bozuk ret uygunsuz defolu çizik kırık";

const MASK: &str = "mask masks msk maske masken maskes masque masques máscara máscaras maschera maschere masker maskers maska maski \
    masky masek маска маски groundtruth groundtruths gt gts segmask segmasks 掩码 掩膜 蒙版 掩模 マスク 마스크 maskeler";

const WEAK_MASK: &str = "label labels labelimg seg segs segm segmentation segmentations annotation annotations anno annos annot \
    标注 标签 アノテーション ラベル 라벨";

const TRAIN: &str = "train training trainset traindata trainingsdaten entraînement entrainement apprentissage entrenamiento \
    addestramento treino treinamento trening treningowe treningowy trénink trénovací обучение обучающие обучающая тренировка \
    тренировочные 训练 訓練 训练集 訓練集 学習 学習用 학습 훈련 학습용 eğitim egitim";

const TEST: &str = "test tests testing testset testdata eval evaluation prüfung pruefung testdaten essai essais prueba pruebas teste \
    testes testowe testowy testovací тест тесты тестовые тестовая 测试 測試 测试集 テスト テスト用 評価 테스트 시험 평가 테스트용";

const VALIDATION: &str = "validation val validierung validación validazione validação walidacja validace валидация 验证 驗證 検証 검증 \
    doğrulama";

const NOT: &str = "not no non none without zero isn isnt arent wasnt never neither nor hardly cannot nicht kein keine keinen ohne pas sans sin sem não nao senza zonder geen niet nie bez ne \
    není neni не без нет 无 無 非 未 没有 不 무";

const UNSURE: &str = "unsure unknown unclear maybe perhaps doubtful questionable mixed misc miscellaneous unsorted unlabeled \
    unlabelled unchecked unbekannt gemischt zweifelhaft unklar";

const HEDGE: &str = "borderline suspect suspicious almost nearly partly partially half pseudo quasi fake false was previously formerly \
    before after mix other others todo rework reworked repaired review but sonstige aber pero autres otros altri";

const NEUTRAL: &str = "image images img imgs photo photos picture pictures pic pics part parts piece pieces sample samples specimen \
    specimens product products item items data dataset datasets set sets dir dirs folder folders file files of the a all any and \
    only with yet so from for rgb frames object objects unit units product \
    bild bilder foto fotos teil teile muster proben stück stücke ordner produkt produkte und mit com alle aufnahmen \
    pièce pièces échantillon échantillons produit produits et de avec \
    imagen imágenes pieza piezas muestra muestras producto productos y con \
    immagine immagini pezzo pezzi campione campioni prodotto prodotti \
    imagem imagens peça peças amostra amostras produto produtos \
    afbeelding afbeeldingen onderdeel onderdelen producten beelden en \
    zdjęcie zdjęcia obraz obrazy części część próbki i \
    obrázek obrázky díl díly vzorek vzorky fotky výrobky \
    изображение изображения фото деталь детали образец образцы картинки изделия и \
    图片 图像 图 样本 样品 照片 数据 品 件 集 画像 写真 サンプル データ 이미지 사진 샘플 데이터 제품 품 \
    görüntü görüntüler resim resimler fotoğraf fotoğraflar parça parçalar ürün ürünler \
    front back left right top bottom side sides";

const SERIAL: &str = "kw cw wk lot lots batch batches line lines cam cams camera cameras shift shifts day days week weeks month year hour run runs \
    session sessions station stations machine machines reel roll tray pallet box order job serial sn v series site plant position \
    pos view views angle frame seq sequence shot shots capture captures scan scans morning afternoon evening night early late am pm \
    monday tuesday wednesday thursday friday saturday sunday mon tue wed thu fri sat sun january february march april may june july \
    august september october november december jan feb mar apr jun jul aug sep oct nov dec today yesterday \
    los lose charge chargen linie linien kamera schicht tag tage woche maschine maschinen rolle früh spät nacht montag dienstag \
    mittwoch donnerstag freitag samstag sonntag januar februar märz mai juni juli oktober dezember \
    ligne lignes équipe jour jours semaine matin soir nuit lundi mardi mercredi jeudi vendredi samedi dimanche janvier février mars \
    avril juin juillet août septembre octobre novembre décembre \
    línea líneas lote lotes turno turnos día días semana cámara cámaras máquina lunes martes miércoles jueves viernes sábado domingo \
    linea linee lotto lotti giorno giorni settimana lunedì martedì mercoledì giovedì venerdì sabato domenica \
    linha linhas dia dias câmera segunda terça quarta quinta sexta \
    lijn ploeg dag dagen maandag dinsdag woensdag donderdag vrijdag zaterdag zondag \
    linia partia zmiana dzień kamera poniedziałek wtorek środa czwartek piątek sobota niedziela \
    linka šarže směna den pondělí úterý středa čtvrtek pátek neděle \
    линия партия смена камера день понедельник вторник среда четверг пятница суббота воскресенье \
    批次 批 产线 班次 班 相机 相機 ライン ロット カメラ 라인 로트 카메라 hat parti vardiya gün kamera";
